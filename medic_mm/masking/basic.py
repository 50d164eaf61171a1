"""Random, grid and block masks: exact counts, any grid, and they always end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError


def masked_count(length: int, mask_ratio: float) -> int:
    """Patches of ``length`` that a ratio hides; rounded down, as in BEiT.

    Raises:
        UserError: for a ratio that is not a number within 0..1.
    """
    require_number('masked_count', 'mask_ratio', mask_ratio, low=0, high=1)
    # the small shift keeps 0.29 * 100 from becoming 28
    return int(length * mask_ratio + 1e-6)


def random_mask(
    batch: int,
    grid: tuple[int, int],
    num_masked: int,
    generator: Generator | None = None,
) -> Tensor:
    """Hide patches drawn uniformly without replacement (MAE's rule).

    Args:
        batch: Number of masks B.
        grid: Rows and columns of patches; L = rows * columns.
        num_masked: Hidden patches per image, 0 to L.
        generator: Source of randomness, its device is the mask's. Default: the global
            generator on the CPU.

    Returns:
        bool ``(B, L)``, row-major, True = hidden, exactly ``num_masked`` per row.

    Raises:
        UserError: where ``num_masked`` is not a whole number within 0..L, or the grid
            is not two whole numbers above 0.
    """
    length = check_count('random_mask', batch, grid, num_masked)
    return _hide_highest(_noise(batch, length, generator), num_masked)


def grid_mask(
    batch: int,
    grid: tuple[int, int],
    num_masked: int,
    generator: Generator | None = None,
) -> Tensor:
    """Hide three of four patches in a regular pattern (MAE's grid sampling).

    Each 2x2 cell shows one patch, the same corner in all cells of an image; the corner
    is drawn per image. Where ``num_masked`` is not the pattern's own count, patches are
    hidden or shown at random until it is met exactly.

    Arguments, result and errors as :func:`random_mask`.
    """
    length = check_count('grid_mask', batch, grid, num_masked)
    noise = _noise(batch, length, generator)
    corner = torch.randint(4, (batch, 1), generator=generator, device=noise.device)
    rows = torch.arange(grid[0], device=noise.device).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], device=noise.device).repeat(grid[0])
    place = rows % 2 * 2 + columns % 2  # (L,): corner of its cell that a patch is
    return _hide_highest(noise + (place != corner), num_masked)


def block_mask(
    batch: int,
    grid: tuple[int, int],
    num_masked: int,
    generator: Generator | None = None,
    min_area: int = 16,
    min_aspect: float = 0.3,
) -> Tensor:
    """Hide rectangles until the count is met (BEiT, https://arxiv.org/abs/2106.08254).

    A rectangle's area is uniform between ``min_area`` and what is left to hide,
    whichever of the two is larger; its aspect ratio is log-uniform between
    ``min_aspect`` and its inverse. It is shorter than the grid on both sides (where the
    grid has two), and placed if it hides something new and not too much: once less than
    ``min_area`` is left, only one that overlaps others can be. After ten failures in a
    row the few patches still missing are drawn at random, as in BEiT-2 and MEDiC, so
    that the count is exact and the loop ends at any ratio. (mmpretrain's
    ``BEiTMaskGenerator`` goes on with rectangles, so that its masks have fewer pieces,
    never reaches the last row and column, and can spin for ever.)

    Made on the CPU: it is a job for a data worker.

    Args:
        min_area: Least area of a rectangle in patches, as long as that many are left;
            then the largest. ``num_masked`` where that is less.
        min_aspect: Least aspect ratio, in (0, 1].

    Other arguments, result and errors as :func:`random_mask`.
    """
    length = check_count('block_mask', batch, grid, num_masked)
    check_blocks('block_mask', min_area, min_aspect)
    require(
        generator is None or generator.device.type == 'cpu',
        'block_mask is made on the CPU: give a generator that is there',
    )
    min_area, log_aspect = min(min_area, num_masked), math.log(min_aspect)
    blocks = np.zeros((batch, *grid), dtype=bool)
    for canvas in blocks:
        missing = _place_rectangles(canvas, num_masked, min_area, log_aspect, generator)
        _hide_at_random(canvas, missing, generator)
    return torch.from_numpy(blocks.reshape(batch, length))


def _place_rectangles(
    canvas: np.ndarray,
    num_masked: int,
    min_area: int,
    log_aspect: float,
    generator: Generator | None,
) -> int:
    """Fill the canvas in place; returns how many patches are still to hide."""
    rows, columns = canvas.shape
    tallest, widest = max(rows - 1, 1), max(columns - 1, 1)
    left_to_hide, failures = num_masked, 0
    draws: list[float] = []
    while left_to_hide > 0 and failures < 10:
        if not draws:
            draws = torch.rand(64, generator=generator).tolist()
        area = min_area + draws.pop() * (left_to_hide - min_area)
        aspect = math.exp(log_aspect * (2 * draws.pop() - 1))
        height = round(math.sqrt(area * aspect))
        width = round(math.sqrt(area / aspect))
        u, v = draws.pop(), draws.pop()
        failures += 1
        if height > tallest or width > widest:
            continue
        top, left = int(u * (rows - height + 1)), int(v * (columns - width + 1))
        window = canvas[top : top + height, left : left + width]
        new = height * width - int(np.count_nonzero(window))
        if 0 < new <= left_to_hide:
            window[...] = True
            left_to_hide -= new
            failures = 0
    return left_to_hide


def _hide_at_random(
    canvas: np.ndarray, count: int, generator: Generator | None
) -> None:
    if count:
        shown = np.flatnonzero(~canvas).tolist()
        for draw in torch.rand(count, generator=generator).tolist():
            canvas.flat[shown.pop(int(draw * len(shown)))] = True


def _noise(batch: int, length: int, generator: Generator | None) -> Tensor:
    device = generator.device if generator is not None else torch.device('cpu')
    return torch.rand(batch, length, generator=generator, device=device)


def _hide_highest(score: Tensor, num_masked: int) -> Tensor:
    hidden = torch.zeros_like(score, dtype=torch.bool)
    return hidden.scatter_(1, score.topk(num_masked, dim=1).indices, True)


def check_grid(owner: Any, grid: Sequence[int]) -> int:
    """Number of patches of a grid, which must be two whole numbers above 0."""
    pair = isinstance(grid, Sequence) and not isinstance(grid, str) and len(grid) == 2
    if not pair or not all(
        isinstance(side, Integral) and not isinstance(side, bool) and side >= 1
        for side in grid
    ):
        whose = owner if isinstance(owner, str) else type(owner).__name__
        raise UserError(
            f'grid={grid!r} of {whose} must be two whole numbers above 0, the rows and '
            'columns of patches'
        )
    return grid[0] * grid[1]


def check_count(owner: str, batch: int, grid: Sequence[int], num_masked: int) -> int:
    """Number of patches of a grid, of which ``num_masked`` can be hidden."""
    length = check_grid(owner, grid)
    require_number(owner, 'batch', batch, low=0, integer=True)
    require_number(owner, 'num_masked', num_masked, integer=True)
    require(
        0 <= num_masked <= length,
        f'num_masked={num_masked} is out of range for a grid of {grid[0]}x{grid[1]} '
        f'patches: it must lie in 0..{length}',
    )
    return length


def check_blocks(owner: Any, min_area: int, min_aspect: float) -> None:
    """Refuse what cannot be the least area and aspect ratio of a rectangle."""
    require_number(owner, 'min_area', min_area, low=1, integer=True)
    require_number(owner, 'min_aspect', min_aspect, above=0, high=1)
