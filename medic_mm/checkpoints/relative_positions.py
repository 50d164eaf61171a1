"""Relative positions of BEiT's networks, for other images and for tables per block.

mmpretrain resizes them by a function that SciPy no longer has, and for square images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_TABLE = 'relative_position_bias_table'
_INDEX = 'relative_position_index'
_SHARED = f'rel_pos_bias.{_TABLE}'
# from the class token, to it, and to itself: the last rows of a table
_EXTRA = 3

Window = tuple[int, int]


def fit_relative_positions(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Bring the tables of a file into the shape that a backbone has.

    One table for all blocks is copied to each block of a backbone with a table per
    block, as BEiT's fine-tuning does it; tables of another window are resized. The
    indices into a table follow from the window, so they are the backbone's own.

    Args:
        weights: The backbone's part of a file, in the names of mmpretrain.
        own: The backbone's ``state_dict()``.

    Returns:
        The weights, and a sentence for each thing that was changed or assumed.

    Raises:
        RuntimeError: for a table whose window cannot be told.
    """
    tables = [name for name in own if name.endswith(_TABLE)]
    if not any(name.endswith(_TABLE) for name in weights):
        return dict(weights), ()
    fitted = {k: v for k, v in weights.items() if not k.endswith(_INDEX)}
    fitted |= {k: v for k, v in own.items() if k.endswith(_INDEX)}
    sources = {name: name for name in tables if name in fitted}
    notes: dict[str, None] = {}  # each once, in order
    if tables and _SHARED in fitted and _SHARED not in own:
        shared = fitted.pop(_SHARED)
        fitted |= {name: shared.clone() for name in tables if name not in fitted}
        sources = {name: sources.get(name, _SHARED) for name in tables}
        notes['each block has a copy of the shared relative positions'] = None
    for name, source in sources.items():
        table, target = fitted[name], own[name]
        if table.ndim != 2 or table.shape[1] != target.shape[1]:
            continue  # loading names both shapes
        old, assumed = _window(source, table, weights)
        new, _ = _window(name, target, own)
        if old == new:
            continue
        fitted[name] = resize_relative_positions(table, old, new)
        notes[
            f'relative positions resized from {_text(old)}{assumed} to {_text(new)}'
        ] = None
    return fitted, tuple(notes)


def resize_relative_positions(table: Tensor, old: Window, new: Window) -> Tensor:
    """Resize a table as BEiT does it.

    The known distances are spread in a geometric progression, close ones densely, so
    that the farthest of the old window meets the farthest of the new one; between them
    the biases are interpolated by cubic splines. The rows of the class token stay.

    Args:
        table: ((2 h - 1) (2 w - 1) + 3, heads).
        old: Rows and columns of patches, (h, w).
        new: The same for the result.
    """
    from scipy.interpolate import RectBivariateSpline

    rows, columns = (_spread(*pair) for pair in zip(old, new, strict=True))
    heads = table[:-_EXTRA].double().cpu().numpy()
    heads = heads.reshape(len(rows), len(columns), -1)
    wanted = [np.arange(1 - side, side) for side in new]
    orders = [min(3, len(known) - 1) for known in (rows, columns)]
    if min(orders) < 1:  # one row or one column of patches
        raise RuntimeError(
            f'relative positions of {_text(old)} patches cannot be resized'
        )
    resized = []
    for head in range(heads.shape[-1]):
        spline = RectBivariateSpline(
            rows, columns, heads[..., head], kx=orders[0], ky=orders[1], s=0
        )
        resized.append(torch.from_numpy(spline(*wanted)).flatten())
    patches = torch.stack(resized, dim=1).to(table)
    return torch.cat([patches, table[-_EXTRA:]])


def _spread(old: int, new: int) -> np.ndarray:
    """Places of the old distances on the new scale, from farthest back to farthest."""
    if old == new:
        return np.arange(1 - old, old)
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reach = (1 - ratio ** (old - 1)) / (1 - ratio)
        low, high = (low, ratio) if reach > new - 1 else (ratio, high)
    ahead = np.cumsum(ratio ** np.arange(old - 1))
    return np.concatenate([-ahead[::-1], [0.0], ahead])


def _window(
    name: str, table: Tensor, weights: Mapping[str, Tensor]
) -> tuple[Window, str]:
    """Rows and columns of patches that a table is for; and whether that is assumed."""
    cells = len(table) - _EXTRA
    index = weights.get(name.removesuffix(_TABLE) + _INDEX)
    if index is None:
        side = math.isqrt(max(cells, 0))
        if side * side != cells or side % 2 == 0:
            raise RuntimeError(
                f'{name} has {len(table)} rows, which is no square window, and the '
                f'file has no {_INDEX} beside it: give a checkpoint that has both'
            )
        return ((side + 1) // 2,) * 2, ' (a square, by the number of rows)'
    patches = len(index) - 1
    # (2 h - 1) (2 w - 1) = 4 h w - 2 (h + w) + 1
    half_sum = (4 * patches + 1 - cells) / 4
    root = math.sqrt(max(half_sum * half_sum - patches, 0))
    for width in {round(half_sum + root), round(half_sum - root)}:
        if width < 1 or patches % width:
            continue
        height = patches // width
        fits = (2 * height - 1) * (2 * width - 1) == cells
        # the first patch of the second row, seen from the first of all
        second = index[1 + width, 1] - index[1, 1] if height > 1 else 2 * width - 1
        if fits and second == 2 * width - 1:
            return (height, width), ''
    raise RuntimeError(
        f'{name} has {len(table)} rows, which do not fit the {patches} patches of the '
        f'{_INDEX} beside it'
    )


def _text(window: Window) -> str:
    return f'{window[0]}x{window[1]}'
