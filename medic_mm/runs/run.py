"""A run folder of ``tools/train.py``, read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medic_mm.checkpoints.description import parse_config_text
from medic_mm.errors import UserError
from medic_mm.runs.charts import Curve
from medic_mm.runs.log import Log, read_log

#: Keys of a line of scalars that are no scalars.
_POSITION = ('step', 'epoch', 'iter')
_CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: The work folder.
        logs: One for each start of the tool, in their order.
        config: The settings of the last start, read without running them; empty where
            they cannot be read.
        config_file: The copy in the work folder, or the one with the scalars.
        config_problem: Why the settings cannot be read, where they cannot.
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
    config_problem: str = ''
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
    def images_per_iteration(self) -> int | None:
        """Images that all processes together take for one iteration, where known."""
        batch = (self.config.get('train_dataloader') or {}).get('batch_size')
        # so mmengine calls the number of processes
        alone = self.config.get('launcher', 'none') == 'none'
        processes = self.environment.get('GPU number', '1' if alone else '')
        if not isinstance(batch, int) or not processes.isdecimal():
            return None
        return batch * max(1, int(processes))

    @property
    def environment(self) -> dict[str, str]:
        """That of the last start which tells it."""
        told = [log.environment for log in self.logs if log.environment]
        return told[-1] if told else {}


def read_run(folder: Path) -> Run:
    """Read a work folder, also of a run that is going on or broke off.

    Nothing of the run is executed.

    Args:
        folder: The folder given to ``tools/train.py --work-dir``, or that of one of its
            starts.

    Raises:
        UserError: for a folder that holds no run; names those that do.
    """
    if not folder.is_dir():
        problem = 'is a file' if folder.exists() else 'does not exist'
        raise UserError(f'folder {str(folder)!r} {problem}: give that of a run')
    starts = _starts(folder)
    if not starts:
        raise UserError(_where_else(folder))
    logs = [start / f'{start.name}.log' for start in starts]
    run = Run(folder, [read_log(log) for log in logs])
    _read_config(run, starts)
    for number, start in enumerate(starts):
        _read_scalars(run, start / 'vis_data' / 'scalars.json', number)
        _find_panels(run, start / 'vis_data' / 'vis_image')
    _drop_not_finite(run)
    found = [path for pattern in _CHECKPOINTS for path in folder.glob(pattern)]
    run.checkpoints = sorted(found, key=lambda path: path.stat().st_mtime)
    return run


def _starts(folder: Path) -> list[Path]:
    """Folders ``TIME`` with a log or scalars, in the order of time."""
    found = sorted(inside for inside in folder.glob('*/') if _is_start(inside))
    return found or [folder] * _is_start(folder.resolve())


def _is_start(folder: Path) -> bool:
    files = (folder / f'{folder.name}.log', folder / 'vis_data' / 'scalars.json')
    return any(file.is_file() for file in files)


def _where_else(folder: Path) -> str:
    below = sorted({str(x.parent) for x in folder.glob('*/*/') if _is_start(x)})
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
            text = path.read_text(encoding='utf-8', errors='replace')
            run.config = parse_config_text(text)
        except (OSError, ValueError) as error:
            run.config_problem = run.config_problem or f'{path}: {error}'
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
