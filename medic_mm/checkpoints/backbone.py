"""Load a backbone's weights: positions brought to its size, then strictly."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medic_mm.checkpoints.reading import find_weights, read_checkpoint
from medic_mm.checkpoints.sizes import Grid, fit_positions, grid_text, recorded_grid
from medic_mm.checkpoints.strict import LoadReport, load_strictly, require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

__all__ = ['LoadReport', 'load_backbone']

_TABLE = 'relative_position_bias_table'
_INDEX = 'relative_position_index'
_SHARED = f'rel_pos_bias.{_TABLE}'
# from the class token, to it, and to itself: the last rows of a table
_EXTRA = 3


def load_backbone(
    model: nn.Module,
    path: str | os.PathLike,
    prefix: str = 'backbone.',
    strict: bool = True,
    source_grid: Sequence[int] | None = None,
    new: Sequence[str] = (),
    left: Sequence[str] = (),
) -> LoadReport:
    """Load the weights below ``prefix`` of a checkpoint into a backbone, or nothing.

    The backbone's own hooks run, so position embeddings of another image size are
    resized as OpenMMLab does it, and relative ones as BEiT's fine-tuning does it. Their
    grid in the file comes from its config or description, or from ``source_grid``;
    without these a square number of patches is read as a square, which the report and
    the log say.

    Args:
        model: The backbone, or a model that has one in ``.backbone``.
        path: A checkpoint of mmengine, or any file of weights, also ``.safetensors``.
        prefix: Start of the names to load; ``''`` takes all.
        strict: Refuse a file with missing or unexpected names. False: report them; a
            file of which nothing fits is refused all the same.
        source_grid: Rows and columns of patches that the file's weights are for.
        new: Beginnings of names that may be missing in the file.
        left: Beginnings of names that the file may have beyond the backbone.

    Returns:
        The names loaded, missing and unexpected, and notes.

    Raises:
        FileError: where no name has the prefix, a weight has another shape or kind, or
            NaN, or ``strict`` is broken; the backbone is left as it was.
    """
    content = read_checkpoint(path, mmap=True)  # the backbone copies the values
    origin = f'checkpoint {path}'
    weights = weights_below(prefix, find_weights(path, content), origin)
    anything = () if strict else ('',)
    report = load_part(
        getattr(model, 'backbone', model),
        weights,
        origin,
        (source_grid, recorded_grid(path, content)),
        new=(*new, *anything),
        left=(*left, *anything),
    )
    for note in report.notes:
        logging.getLogger(__name__).warning(note)
    return report


def weights_below(
    prefix: str, weights: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """Weights whose names begin with ``prefix``, without it.

    Raises:
        FileError: where there are none; says with what names begin, and where they
            come from (``origin``).
    """
    size = len(prefix)
    found = {k[size:]: v for k, v in weights.items() if k.startswith(prefix)}
    if not found:
        counts = Counter(''.join(name.partition('.')[:2]) for name in weights)
        raise FileError(
            f'{origin} has no weights below prefix={prefix!r}: its names begin with '
            f'{listed(name for name, _ in counts.most_common())}'
        )
    return found


def load_part(
    part: nn.Module,
    weights: Mapping[str, Any],
    origin: str,
    grids: tuple[Sequence[int] | None, Grid | None] = (None, None),
    remedy: Callable[[set[str], set[str]], str] = lambda missing, unexpected: '',
    new: Sequence[str] = (),
    left: Sequence[str] = (),
) -> LoadReport:
    """:func:`~medic_mm.checkpoints.strict.load_strictly`, with positions fitted.

    Args:
        part: The network.
        weights: Under its names.
        origin: Where they come from, to begin the sentence.
        grids: Rows and columns of the weights' patches: as given, as recorded.
        remedy: From names missing and unexpected to what the user can do.
        new: Beginnings of names that may be missing.
        left: Beginnings of names that may be left over.
    """
    own = part.state_dict()
    if not set(weights) & set(own):
        raise FileError(
            f'{origin} has nothing that {type(part).__name__} takes: its names are '
            f'{listed(weights)}'
        )
    fitted, notes = fit_part(part, weights, origin, grids)
    new, left = tuple(new), tuple(left)
    missing = {x for x in own if x not in fitted and not x.startswith(new)}
    unexpected = {x for x in fitted if x not in own and not x.startswith(left)}
    advice = remedy(missing, unexpected)
    report = load_strictly(part, fitted, origin, advice, new, left)
    return replace(report, notes=notes)


def fit_part(
    part: nn.Module,
    weights: Mapping[str, Any],
    origin: str,
    grids: tuple[Sequence[int] | None, Grid | None] = (None, None),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Bring the positions among weights into the shapes of a network, with notes."""
    own = part.state_dict()
    positions = {
        name: value
        for name, value in weights.items()
        if (name in own and name == 'pos_embed') or 'relative_position_' in name
    }
    require_numbers(positions, origin, integers=[_INDEX])
    fitted, notes = fit_positions(part, weights, origin, *grids)
    fitted, more = fit_relative_positions(fitted, own)
    return fitted, (*notes, *more)


def fit_relative_positions(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Bring the tables of a file into the shapes of a backbone's ``state_dict()``.

    One table for all blocks is copied to each block of a backbone with a table per
    block, as BEiT's fine-tuning does it; tables of another window are resized. The
    indices into a table follow from the window, so they are the backbone's own.

    Returns:
        The weights, and a sentence for each thing that was changed or assumed.

    Raises:
        FileError: for a table whose rows and columns cannot be found out.
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
            f'relative positions resized from {grid_text(old)}{assumed} to '
            f'{grid_text(new)}'
        ] = None
    return fitted, tuple(notes)


def resize_relative_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
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
        raise FileError(
            f'relative positions of {grid_text(old)} patches cannot be resized'
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
) -> tuple[Grid, str]:
    """Rows and columns of patches that a table is for; and whether that is assumed."""
    cells = len(table) - _EXTRA
    index = weights.get(name.removesuffix(_TABLE) + _INDEX)
    if index is None:
        side = math.isqrt(max(cells, 0))
        if side * side != cells or side % 2 == 0:
            raise FileError(
                f'{name} has {len(table)} rows, which is not a square window, and the '
                f'file has no {_INDEX} next to it: give a checkpoint that has both'
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
    raise FileError(
        f'{name} has {len(table)} rows, which do not fit the {patches} patches of the '
        f'{_INDEX} next to it'
    )
