"""Load a backbone's weights, strictly and with a report."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from medic_mm.checkpoints.grid import Grid, fit_positions, recorded_grid
from medic_mm.checkpoints.loading import find_weights, read_checkpoint
from medic_mm.checkpoints.relative_positions import fit_relative_positions
from medic_mm.checkpoints.strict import LoadReport, load_strictly
from medic_mm.checkpoints.values import require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

__all__ = ['LoadReport', 'load_backbone']

_RELATIVE = 'relative_position_'


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
    resized as the host does it, and relative ones as BEiT's fine-tuning does it. Their
    grid in the file comes from its config or
    description, or from ``source_grid``; without these a square number of patches is
    read as a square, which the report and the log say.

    Args:
        model: The backbone, or a model that has one in ``.backbone``.
        path: A checkpoint of MMEngine, or any file of weights, ``.safetensors`` too.
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
    backbone = getattr(model, 'backbone', model)
    content = read_checkpoint(path, mmap=True)  # the backbone copies the values
    state = find_weights(path, content)
    weights = {
        name[len(prefix) :]: value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    origin = f'checkpoint {path}'
    if not weights:
        raise FileError(
            f'{origin} has no weights below prefix={prefix!r}: its names begin with '
            f'{beginnings(state)}'
        )
    anything = () if strict else ('',)
    known = recorded_grid(path, content)
    report = load_part(
        backbone,
        weights,
        origin,
        (source_grid, known),
        new=(*new, *anything),
        left=(*left, *anything),
    )
    for note in report.notes:
        logging.getLogger(__name__).warning(note)
    return report


def load_part(
    part: nn.Module,
    weights: Mapping[str, Any],
    origin: str,
    grids: tuple[Sequence[int] | None, Grid | None] = (None, None),
    remedy: Callable[[set[str], set[str]], str] = lambda missing, unexpected: '',
    new: Sequence[str] = (),
    left: Sequence[str] = (),
) -> LoadReport:
    """Load weights under a network's own names: positions fitted, and strictly.

    Args:
        part: The network.
        weights: Under its names.
        origin: Where they come from, to begin the sentence.
        grids: Rows and columns of the weights' patches: as given, as recorded.
        remedy: From names missing and unexpected to what the user can do.
        new: Beginnings of names that may be missing.
        left: Beginnings of names that may be left over.

    Raises:
        FileError: for weights that do not fit; the network is left as it was.
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
        if (name in own and name == 'pos_embed') or _RELATIVE in name
    }
    require_numbers(positions, origin, integers=['relative_position_index'])
    fitted, notes = fit_positions(part, weights, origin, *grids)
    fitted, more = fit_relative_positions(fitted, own)
    return fitted, (*notes, *more)


def beginnings(state: Mapping[str, Tensor]) -> str:
    """With what names begin, the most frequent first."""
    counts = Counter(
        name.split('.')[0] + '.' if '.' in name else name for name in state
    )
    return listed(name for name, _ in counts.most_common())
