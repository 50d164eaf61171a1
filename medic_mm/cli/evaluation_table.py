"""The table of an evaluation, in Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medic_mm.checkpoints.saving import write_json, write_whole
from medic_mm.cli.evaluation_plan import LeftOut
from medic_mm.helpers import duration

_HEADINGS = ('task', 'data', 'metric', 'value', 'time', 'config')


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        task: For example ``'linear probe'``.
        data: For example ``'CIFAR-10'``.
        metric: What was measured.
        value: In percent.
        config: The config that it was measured with.
        seconds: That the whole task takes. k-NN and linear probe share their features,
            whose time is in both.
        resumed: Whether ``seconds`` is of the last part of several.
    """

    task: str
    data: str
    metric: str
    value: float
    config: str
    seconds: float
    resumed: bool = False


@dataclass
class Evaluation:
    """All that was measured of one checkpoint.

    Attributes:
        checkpoint: The file, or ``'random'``.
        student: What it is, in words.
        rows: In the order of the suite.
        left_out: Tasks that could not be run.
        failed: Those that broke off.
    """

    checkpoint: str
    student: str
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, with what it is of and what it lacks."""
        cells = [_HEADINGS, *map(_cells, self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADINGS))]
        lines = [f'Evaluation of `{self.checkpoint}`, a {self.student}', '']
        lines += [_line(_HEADINGS, widths), _rule(widths)]
        lines += [_line(row, widths) for row in cells[1:]]
        for text in (self.left_out_sentence(), self.failed_sentence()):
            lines += ['', text] if text else []
        return '\n'.join(lines)

    def left_out_sentence(self) -> str:
        """What was left out and why; empty where nothing was."""
        return f'Left out: {_reasons(self.left_out)}.' if self.left_out else ''

    def failed_sentence(self) -> str:
        """What broke off; empty where nothing did."""
        return f'Failed: {_reasons(self.failed)}.' if self.failed else ''

    def as_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    def save(self, folder: Path) -> list[Path]:
        """Write ``evaluation.md`` and ``evaluation.json``; returns their paths."""
        files = [folder / 'evaluation.md', folder / 'evaluation.json']
        write_whole(files[0], self.markdown() + '\n')
        write_json(files[1], self.as_dict())
        return files


def _cells(row: Row) -> tuple[str, ...]:
    time = duration(row.seconds) + (' (resumed)' if row.resumed else '')
    value = f'{row.value:.2f}'
    return (row.task, row.data, row.metric, value, time, f'`{row.config}`')


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        f'{cell:>{width}}' if name in ('value', 'time') else f'{cell:<{width}}'
        for cell, width, name in zip(cells, widths, _HEADINGS, strict=True)
    ]
    return f'| {" | ".join(padded)} |'


def _rule(widths: Sequence[int]) -> str:
    rules = [
        '-' * (width + 1) + (':' if name in ('value', 'time') else '-')
        for width, name in zip(widths, _HEADINGS, strict=True)
    ]
    return f'|{"|".join(rules)}|'


def _reasons(tasks: Sequence[LeftOut]) -> str:
    """Tasks with the same reason are named together."""
    by_reason: dict[str, list[str]] = {}
    for task in tasks:
        by_reason.setdefault(task.reason, []).append(task.title)
    return '; '.join(
        f'{", ".join(titles)} ({reason})' for reason, titles in by_reason.items()
    )
