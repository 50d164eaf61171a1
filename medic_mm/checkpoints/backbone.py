"""Load a backbone's weights, strictly and with a report."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from medic_mm.checkpoints.grid import fit_positions, recorded_grid
from medic_mm.checkpoints.loading import find_weights, read_checkpoint
from medic_mm.checkpoints.relative_positions import fit_relative_positions
from medic_mm.checkpoints.strict import LoadReport, load_strictly
from medic_mm.checkpoints.values import require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

__all__ = ['LoadReport', 'load_backbone']

_POSITIONS = re.compile(r'(^|\.)(pos_embed$|relative_position_)')


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
            f'{_beginnings(state)}'
        )
    own = backbone.state_dict()
    if not set(weights) & set(own):
        raise FileError(
            f'{origin} has nothing that {type(backbone).__name__} takes: below '
            f'prefix={prefix!r} it has {listed(weights)}'
        )
    positions = {k: v for k, v in weights.items() if _POSITIONS.search(k)}
    require_numbers(positions, origin, integers=['relative_position_index'])
    known = recorded_grid(path, content)
    weights, notes = fit_positions(backbone, weights, origin, source_grid, known)
    weights, more = fit_relative_positions(weights, own)
    notes += more
    anything = () if strict else ('',)
    report = load_strictly(
        backbone, weights, origin, new=(*new, *anything), left=(*left, *anything)
    )
    for note in notes:
        logging.getLogger(__name__).warning(note)
    return replace(report, notes=tuple(notes))


def _beginnings(state: dict[str, Tensor]) -> str:
    counts = Counter(
        name.split('.')[0] + '.' if '.' in name else name for name in state
    )
    return listed(name for name, _ in counts.most_common())
