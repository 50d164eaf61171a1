"""Whether what a teacher cache holds is what its teacher returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from medic_mm.errors import FileError

#: Largest deviation of a recomputed value, as a part of itself plus the root mean
#: square of its token or row of attention. Wide enough for float16 and for another
#: device's reduced precision, far too narrow for another crop or other weights.
TOLERANCE = 0.01
#: The step between the smallest values of float16. A patch that looks at the class
#: token alone has nothing but such values for the patches.
SMALLEST_STEP = 2.0**-24


def require_agreement(
    stored: Sequence[Tensor | None],
    fresh: Sequence[Tensor | None],
    names: Sequence[tuple[int, int]],
    path: Path,
    is_new: bool = False,
) -> None:
    """Compare tensors of a cache with those of its teacher.

    Args:
        stored: ``(B, rows, columns)`` each; None where one is not kept.
        fresh: The teacher's, likewise.
        names: Image and view of each of the B.
        path: Name of the cache, for the message.
        is_new: Whether it was filled just now, so that its cause is in this run.

    Raises:
        FileError: where they deviate; names images and views.
    """
    agrees = [True] * len(names)
    for ours, theirs in zip(stored, fresh, strict=True):
        if ours is not None and theirs is not None:
            same = zip(agrees, _agree(ours, theirs.float()), strict=True)
            agrees = [before and now for before, now in same]
    checked = zip(names, agrees, strict=True)
    wrong = [f'image {i} view {v}' for (i, v), good in checked if not good]
    if wrong:
        remedy = (
            'a random transform stands outside FixedView: move it inside'
            if is_new
            else f'remove {path.with_suffix(".*")} to fill it again; if that does not '
            'help, a random transform stands outside FixedView'
        )
        raise FileError(
            f'the teacher cache {path} disagrees with the teacher for '
            f'{", ".join(wrong)} ({len(wrong)} of {len(names)} checked): {remedy}'
        )


def _agree(stored: Tensor, fresh: Tensor) -> list[bool]:
    """For each of the B, whether all values are within the tolerance."""
    scale = fresh.abs() + fresh.square().mean(-1, keepdim=True).sqrt()
    # written so that a NaN counts as a deviation
    within = (stored - fresh).abs() <= TOLERANCE * scale + SMALLEST_STEP
    return within.flatten(1).all(1).tolist()
