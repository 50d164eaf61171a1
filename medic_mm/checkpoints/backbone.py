"""Load a backbone's weights, strictly and with a report."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

from medic_mm.checkpoints.loading import read_state_dict
from medic_mm.checkpoints.relative_positions import fit_relative_positions
from medic_mm.helpers import listed


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight.

    Attributes:
        loaded: Names in the backbone that got their weights from the file.
        missing: Names in the backbone that the file does not have.
        unexpected: Names in the file, without the prefix, that the backbone lacks.
        notes: What was resized, copied or assumed.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_backbone(
    model: nn.Module,
    path: str | os.PathLike,
    prefix: str = 'backbone.',
    strict: bool = True,
) -> LoadReport:
    """Load the weights below ``prefix`` of a checkpoint into a backbone.

    The backbone's own hooks run, so position embeddings of another image size are
    resized as the host does it; relative ones are fitted as BEiT's fine-tuning does it.

    Args:
        model: The backbone, or a model that has one in ``.backbone``.
        path: A checkpoint of MMEngine, or any file of weights, ``.safetensors`` too.
        prefix: Start of the names to load; ``''`` takes all.
        strict: Refuse a file with missing or unexpected names. False: report them; a
            file of which nothing fits is refused all the same.

    Returns:
        The names loaded, missing and unexpected.

    Raises:
        RuntimeError: where no name has the prefix, a shape differs, or ``strict`` is
            broken. The backbone may be partly loaded then.
    """
    backbone = getattr(model, 'backbone', model)
    state = read_state_dict(path, mmap=True)  # the backbone copies the values
    weights = {
        name[len(prefix) :]: value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if not weights:
        raise RuntimeError(
            f'checkpoint {path} has no weights below prefix={prefix!r}: its names '
            f'begin with {_beginnings(state)}'
        )
    weights, notes = fit_relative_positions(weights, backbone.state_dict())
    try:
        found = backbone.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        mismatch = ' '.join(str(error).split())
        raise RuntimeError(f'checkpoint {path} does not fit: {mismatch}') from error
    missing, unexpected = tuple(found.missing_keys), tuple(found.unexpected_keys)
    if strict and (missing or unexpected):
        raise RuntimeError(
            f'checkpoint {path} does not fit {type(backbone).__name__}: '
            f'missing {listed(missing)}; unexpected {listed(unexpected)}'
        )
    absent = set(missing)
    loaded = tuple(name for name in backbone.state_dict() if name not in absent)
    if not loaded:
        raise RuntimeError(
            f'checkpoint {path} has nothing that {type(backbone).__name__} takes: '
            f'below prefix={prefix!r} it has {listed(unexpected)}'
        )
    return LoadReport(loaded, missing, unexpected, notes)


def _beginnings(state: dict[str, Tensor]) -> str:
    counts = Counter(
        name.split('.')[0] + '.' if '.' in name else name for name in state
    )
    return listed(name for name, _ in counts.most_common())
