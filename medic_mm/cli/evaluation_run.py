"""One task of an evaluation.

It is a call of the tool that a user would call, in a process of its own, and leaves a
``result.json`` in its folder; a task that has one is not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config

import medic_mm
from medic_mm.checkpoints.saving import write_json, write_whole
from medic_mm.cli.evaluation_inputs import PretrainedStudent
from medic_mm.cli.evaluation_plan import SUITE, Task, features_config
from medic_mm.errors import UserError
from medic_mm.helpers import duration
from medic_mm.settings.pretrained import RANDOM
from medic_mm.settings.run_config import short_path

#: Neighbours of the k-NN.
K = 20
_METRICS = {
    'accuracy/top1': 'top-1 accuracy (%)',
    'mIoU': 'mIoU (%)',
}


class TaskError(Exception):
    """A task that broke off; the text is the reason."""


@dataclass(frozen=True)
class Row:
    """One number of the table.

    ``value`` is in percent. ``seconds`` are those of the whole task; k-NN and linear
    probe share their features, whose time is in both. ``resumed``: ``seconds`` are of
    the last part of several.
    """

    task: str
    data: str
    metric: str
    value: float
    config: str
    seconds: float
    resumed: bool = False

    def cells(self) -> tuple[str, ...]:
        """Texts for the columns of the table."""
        time = duration(self.seconds) + (' (resumed)' if self.resumed else '')
        numbers = (f'{self.value:.2f}', time)
        return (self.task, self.data, self.metric, *numbers, f'`{self.config}`')


@dataclass
class Run:
    """One task in its folder.

    ``probe_too`` says of a k-NN that a linear probe on the same features follows.
    """

    task: Task
    student: PretrainedStudent
    root: Path
    out: Path
    gpus: int
    probe_too: bool
    resumed: bool = False

    @property
    def folder(self) -> Path:
        return self.out / self.task.name

    def rows(self) -> list[Row]:
        """Run the task, unless its result is there."""
        self._remember_what_it_is_of(self.folder)
        result = self.folder / 'result.json'
        if result.is_file():
            print(f'It is in {result} already.', flush=True)
            return [Row(**row) for row in json.loads(result.read_text())]
        if self.task.config is None:
            config, values, seconds = self._features()
        else:
            start = time.perf_counter()
            config = self.adapted_config(self.task.config)
            values = self._training(config)
            seconds = round(time.perf_counter() - start, 1)
        rows = [
            Row(
                SUITE[self.task.kind],
                self.task.data.title,
                metric,
                value,
                str(_below(config, self.root)),
                seconds,
                self.resumed,
            )
            for metric, value in values.items()
        ]
        write_json(result, [asdict(row) for row in rows])
        found = ', '.join(f'{name} {value:.2f}' for name, value in values.items())
        print(f'{self.task.title}: {found}, {duration(seconds)}', flush=True)
        return rows

    def _remember_what_it_is_of(self, folder: Path) -> None:
        """Results of other weights, data or configs are not to be mixed with these."""
        file = folder / 'task.json'
        ours = {
            'weights': _identity(self.student),
            'data': str(self.task.folder),
            'config': self.task.config and self.task.config.name,
        }
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, ours)
            return
        theirs = json.loads(file.read_text())
        for what, value in ours.items():
            if theirs.get(what) != value:
                raise UserError(
                    f'{folder} holds results of other {what} '
                    f'({theirs.get(what)}, not {value}): give another --out, or '
                    'remove that folder'
                )

    def _features(self) -> tuple[Path, dict[str, float], float]:
        """k-NN, or a linear probe, on features computed once.

        Where both are planned, one call gives both: the features are most of the work.

        Returns:
            The config, the values, and seconds; those for the features are in both.
        """
        folder = self.folder.with_name(f'features-{self.task.data.name}')
        self._remember_what_it_is_of(folder)
        # JSON is not run when it is read: settings may come from a checkpoint
        config = folder / 'features.json'
        features_config(self.student, self.task.data, self.task.folder, self.root).dump(
            config
        )
        knn = self.task.kind == 'knn'
        probed = self.probe_too or not knn
        tool = 'linear_probe' if probed else 'knn'
        report = folder / f'{tool}.json'
        if not report.is_file():
            tools = [sys.executable, str(self.root / 'tools' / f'{tool}.py')]
            self._call(
                tools,
                [str(config), self.student.checkpoint, '--k', str(K)]
                + ['--out', str(report)],
            )
        found = json.loads(report.read_text())
        rows = found['linear' if not knn else 'knn' if probed else 'results']
        images = f'{found["train_images"]:,} training images'
        ending = f'k = {K}, {images}' if knn else images
        values = {
            f'top-1 accuracy (%), {row["features"]}, {ending}': row['top1']
            for row in rows
        }
        seconds = found['encoding_seconds' if knn and probed else 'seconds']
        return config, values, seconds

    def adapted_config(self, recipe: Path) -> Path:
        """The benchmark config, or one that inherits from it and has the changes."""
        if not self.task.changes:
            return recipe
        nested: dict[str, Any] = {}
        for key, value in self.task.changes.items():
            *above, last = key.split('.')
            node = nested
            for name in above:
                node = node.setdefault(name, {})
            node[last] = value
        file = self.folder / 'config' / recipe.name
        file.parent.mkdir(exist_ok=True)
        lines = [f'_base_ = {str(recipe.absolute())!r}']
        lines += [f'{key} = {pformat(value)}' for key, value in nested.items()]
        write_whole(file, '\n'.join(lines) + '\n')
        return file

    def _training(self, config: Path) -> dict[str, float]:
        """Train by the benchmark config, then test the last checkpoint."""
        data = ['--data-root', str(self.task.folder)]
        if not (self.folder / 'trained').is_file():
            given = ['--work-dir', str(self.folder)]
            given += ['--pretrained', self.student.checkpoint]
            if any(self.folder.glob('*.pth')):
                self.resumed = True
                given += ['--resume', 'auto']
            if Config.fromfile(config).get('auto_scale_lr'):
                given.append('--auto-scale-lr')
            self._call(self._launcher('train', config), [*given, *data])
            (self.folder / 'trained').touch()
        pointer = self.folder / 'last_checkpoint'
        if not pointer.is_file():
            raise TaskError(f'training left no checkpoint in {self.folder}')
        last = self.folder / Path(pointer.read_text().strip()).name
        metrics = self.folder / 'metrics.json'
        self._call(
            self._launcher('test', config, last),
            ['--work-dir', str(self.folder / 'test'), '--out', str(metrics)] + data,
        )
        found = json.loads(metrics.read_text())
        values = {
            title: float(found[name])
            for name, title in _METRICS.items()
            if name in found
        }
        if not values:
            raise TaskError(
                f'{metrics} has none of {", ".join(_METRICS)} (it has '
                f'{", ".join(found)})'
            )
        return values

    def _launcher(self, tool: str, *files: Path) -> list[str]:
        tools = self.root / 'tools'
        if self.gpus == 1:
            return [sys.executable, str(tools / f'{tool}.py'), *map(str, files)]
        script = tools / f'dist_{tool}.sh'
        return ['bash', str(script), *map(str, files), str(self.gpus)]

    def _call(self, tool: list[str], arguments: list[str]) -> None:
        status = subprocess.run(
            [*tool, *arguments], env=_environment(), check=False
        ).returncode
        if status:
            name = Path(tool[1]).name
            raise TaskError(
                f'tools/{name} ended with status {status}, its reason is above; a '
                'second call goes on where it stopped'
            )


def _identity(student: PretrainedStudent) -> str:
    """Tells one checkpoint from another, wherever it lies."""
    if student.checkpoint == RANDOM:
        return f'random weights of a {student.title}'
    path = Path(student.checkpoint)
    found = path.stat()
    return f'{path.name}, {found.st_size} bytes, of {found.st_mtime:.0f}'


def _below(path: Path, root: Path) -> Path:
    """As seen from the repository, else from the current folder."""
    try:
        return path.resolve().relative_to(root.resolve())
    except ValueError:
        return short_path(path)


def _environment() -> dict[str, str]:
    """In which this very package is found, installed or not."""
    paths = [str(Path(medic_mm.__file__).parents[1]), os.environ.get('PYTHONPATH')]
    return {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
        # for the launch scripts
        'MEDIC_MM_PYTHON': sys.executable,
    }
