"""Numbers that a run measured, as its log beside the checkpoint has them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ACCURACY = re.compile(r'knn/(?P<features>\w+?)_top1_k(?P<k>\d+)')


@dataclass(frozen=True)
class Accuracy:
    """A k-NN accuracy.

    Attributes:
        features: ``'cls'`` (class token) or ``'mean'`` (mean patch token).
        k: Number of neighbours.
        top1: In percent.
        before: The same of the network before training, where it was measured.
    """

    features: str
    k: int
    top1: float
    before: float | None


def read_accuracies(checkpoint: Path, step: int | None) -> list[Accuracy]:
    """k-NN accuracies of a checkpoint from the logs beside it.

    ``KNNHook`` writes them to ``TIME/vis_data/scalars.json`` in the work folder; a run
    that was resumed has several.

    Args:
        checkpoint: The file; its folder is searched.
        step: Its epoch, or iteration where k-NN counts these: numbers of other steps
            are another network's. None: unknown, so there are none.
    """
    if step is None:
        return []
    rows: dict[int, dict[str, float]] = {}
    for log in sorted(checkpoint.parent.glob('*/vis_data/scalars.json')):
        for line in log.read_text(errors='replace').splitlines():
            row = _row(line)
            found = {k: v for k, v in row.items() if _ACCURACY.fullmatch(k)}
            if found and isinstance(row.get('step'), int):
                rows.setdefault(row['step'], {}).update(found)
    first = rows.get(0, {})
    accuracies = []
    for name, top1 in rows.get(step, {}).items():
        parts = _ACCURACY.fullmatch(name)
        assert parts is not None
        accuracies.append(
            Accuracy(parts['features'], int(parts['k']), top1, first.get(name))
        )
    return accuracies


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:  # a run that was stopped while it wrote
        return {}
    return row if isinstance(row, dict) else {}
