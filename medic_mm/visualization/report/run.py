"""A run folder of ``tools/train.py``, read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.visualization.report.log import Log, read_log

Curve = list[tuple[float, float]]
#: Keys of a line of scalars that are no scalars.
_POSITION = ('step', 'epoch', 'iter')
_CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')


class NoRunError(ValueError):
    """A folder that holds no run; the text is a sentence for users."""


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: The work folder.
        logs: One for each start of the tool, in their order.
        config: The settings of the last start; empty where they cannot be read.
        config_file: The copy in the work folder, or the one beside the scalars.
        records: Lines of scalars in their order, with ``start``: number of the start.
        curves: Name to finite points; a start replaces the steps that it repeats.
        not_finite: Name to the steps of values that are NaN or infinite.
        torn: Number of lines of scalars that cannot be read.
        panels: Epoch to picture.
        checkpoints: The files, oldest first.
    """

    folder: Path
    logs: list[Log]
    config: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    not_finite: dict[str, list[float]] = field(default_factory=dict)
    torn: int = 0
    panels: dict[int, Path] = field(default_factory=dict)
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def unit(self) -> str:
        """What the run counts: ``'epochs'`` or ``'iterations'``."""
        loop = self.config.get('train_cfg') or {}
        return 'iterations' if 'max_iters' in loop else 'epochs'

    @property
    def planned(self) -> int | None:
        """So many epochs or iterations the config asks for."""
        loop = self.config.get('train_cfg') or {}
        return loop.get('max_iters' if self.unit == 'iterations' else 'max_epochs')

    @property
    def done(self) -> int:
        """So many are known to be done."""
        unit = self.unit
        shown = [x.epochs() if unit == 'epochs' else x.iterations() for x in self.logs]
        return max([*shown, *(log.saved(unit) for log in self.logs)], default=0)

    @property
    def finished(self) -> bool:
        """Whether all that was planned is done."""
        return self.planned is not None and self.done >= self.planned

    @property
    def seconds(self) -> float:
        """Between first and last lines of the logs, all starts together."""
        return sum(log.seconds for log in self.logs)

    @property
    def environment(self) -> dict[str, str]:
        """That of the last start which tells it."""
        told = [log.environment for log in self.logs if log.environment]
        return told[-1] if told else {}


def read_run(folder: Path) -> Run:
    """Read a work folder, also of a run that is going on or broke off.

    Raises:
        NoRunError: for a folder that holds no run; names those that do.
    """
    if not folder.is_dir():
        problem = 'is a file' if folder.exists() else 'does not exist'
        raise NoRunError(f'folder {str(folder)!r} {problem}: give that of a run')
    starts = _starts(folder)
    if not starts:
        raise NoRunError(_where_else(folder))
    run = Run(folder, [read_log(start / f'{start.name}.log') for start in starts])
    _read_config(run, starts)
    for number, start in enumerate(starts):
        _read_scalars(run, start / 'vis_data' / 'scalars.json', number)
        _find_panels(run, start / 'vis_data' / 'vis_image')
    _drop_not_finite(run)
    found = [path for pattern in _CHECKPOINTS for path in folder.glob(pattern)]
    run.checkpoints = sorted(found, key=lambda path: path.stat().st_mtime)
    return run


def _starts(folder: Path) -> list[Path]:
    """Folders ``TIME`` with ``TIME.log``, in the order of time."""
    return sorted(log.parent for log in folder.glob('*/*.log') if _own_log(log))


def _own_log(log: Path) -> bool:
    return log.stem == log.parent.name and log.is_file()


def _where_else(folder: Path) -> str:
    if any(_own_log(log) for log in folder.resolve().glob('*.log')):
        return f'{folder} is one start of a run: give the folder that it is in'
    below = sorted(
        {str(x.parent.parent) for x in folder.glob('*/*/*.log') if _own_log(x)}
    )
    if below:
        return f'{folder} holds no run itself: give one of {", ".join(below)}'
    return (
        f'{folder} holds no run: give the work folder of tools/train.py, which has a '
        'folder named by the time of the start with a log of that name'
    )


def _read_config(run: Run, starts: list[Path]) -> None:
    # what the last start used; the copy in the work folder has the name of its origin
    copies = sorted(run.folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    used = [x / 'vis_data' / 'config.py' for x in reversed(starts)]
    for path in [*(x for x in used if x.is_file()), *reversed(copies)]:
        try:
            run.config = Config.fromfile(path).to_dict()
        except Exception:  # whatever a torn Python file raises
            continue
        run.config_file = copies[-1] if copies else path
        return


def _read_scalars(run: Run, path: Path, start: int) -> None:
    """Add what a start logged; it replaces what those before had of its steps."""
    if not path.is_file():
        return
    logged: dict[str, dict[float, float]] = {}
    text = path.read_text(encoding='utf-8', errors='replace')
    for line in text.splitlines():
        try:
            record = json.loads(line)
            step = float(record['step'])
        except (ValueError, KeyError, TypeError):
            run.torn += bool(line.strip())
            continue
        run.records.append({**record, 'start': start})
        for name, value in _scalars(record):
            logged.setdefault(name, {})[step] = value
    for name, points in logged.items():
        first = min(points)
        before = [p for p in run.curves.get(name, []) if p[0] < first]
        run.curves[name] = before + sorted(points.items())


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and name not in _POSITION:
            yield name, value


def _drop_not_finite(run: Run) -> None:
    """Keep what can be drawn, and where the rest was."""
    for name, points in list(run.curves.items()):
        bad = [step for step, value in points if not math.isfinite(value)]
        if bad:
            run.not_finite[name] = bad
            run.curves[name] = [p for p in points if math.isfinite(p[1])]
        if not run.curves[name]:
            del run.curves[name]


def _find_panels(run: Run, folder: Path) -> None:
    for path in folder.glob('panel_*.png'):
        step = path.stem.rpartition('_')[2]
        if step.isdecimal():
            run.panels[int(step)] = path
