"""What grids, counts and blocks of masks may be; quick, since it is asked per image."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from medic_mm.checks import require, require_number


def check_grid(owner: Any, grid: Sequence[int]) -> int:
    """Number of patches of a grid.

    Args:
        owner: Whose argument it is: its name, or the component itself.
        grid: Rows and columns of patches.

    Raises:
        UserError: for anything but two whole numbers above 0.
    """
    pair = isinstance(grid, Sequence) and not isinstance(grid, str) and len(grid) == 2
    if not pair or not all(map(_is_side, grid)):
        whose = owner if isinstance(owner, str) else type(owner).__name__
        require(
            False,
            f'grid={grid!r} of {whose} must be two whole numbers above 0, the rows and '
            'columns of patches',
        )
    return grid[0] * grid[1]


def check_count(owner: Any, batch: int, grid: Sequence[int], num_masked: int) -> int:
    """Number of patches of a grid of which so many are to be hidden.

    Raises:
        UserError: for a batch, grid or count that cannot be.
    """
    length = check_grid(owner, grid)
    if type(batch) is not int or batch < 0:
        require_number(owner, 'batch', batch, low=0, integer=True)
    if type(num_masked) is not int:
        require_number(owner, 'num_masked', num_masked, integer=True)
    if not 0 <= num_masked <= length:
        require(
            False,
            f'num_masked={num_masked} is out of range for a grid of {grid[0]}x{grid[1]}'
            f' patches: it must lie in 0..{length}',
        )
    return length


def check_blocks(owner: Any, min_area: int, min_aspect: float) -> None:
    """Refuse what cannot be the least area and aspect ratio of a rectangle.

    Raises:
        UserError: for an area below 1 or an aspect ratio outside of (0, 1].
    """
    if type(min_area) is not int or min_area < 1:
        require_number(owner, 'min_area', min_area, low=1, integer=True)
    if type(min_aspect) is not float or not 0 < min_aspect <= 1:
        require_number(owner, 'min_aspect', min_aspect, above=0, high=1)


def _is_side(size: Any) -> bool:
    whole = type(size) is int or (
        isinstance(size, Integral) and not isinstance(size, bool)
    )
    return whole and size >= 1
