"""Evaluate a pre-trained checkpoint on all the data there are; writes one table.

    medic-mm evaluate CHECKPOINT --data data --suite knn,linear

Which student it is, is read from the checkpoint; the benchmark configs that fit it are
found by themselves. CHECKPOINT may be the word ``random``: the student of --config
before training, for comparison. A second call goes on where the first one stopped.
"""

# Each task is a call of the tool that a user would call, in a process of its own, and
# leaves a ``result.json`` in its folder; a task that has one is not run again.

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

import medic_mm
from medic_mm.checkpoints.saving import write_json
from medic_mm.cli.evaluation_features import features_config
from medic_mm.cli.evaluation_plan import (
    DATASETS,
    SUITE,
    LeftOut,
    Task,
    check_suite,
    make_plan,
)
from medic_mm.cli.evaluation_student import PretrainedStudent, read_student
from medic_mm.cli.evaluation_table import Evaluation, Row
from medic_mm.cli.main import root_folder
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


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('checkpoint', help="checkpoint of pre-training, or 'random'")
    add(
        '--data',
        type=Path,
        default=Path('data'),
        metavar='ROOT',
        help='folder that holds cifar10, imagenet, camvid, ADEChallengeData2016, or '
        'some of them (default: data)',
    )
    add(
        '--suite',
        type=lambda text: text.split(','),
        default=list(SUITE),
        metavar='TASK,TASK',
        help=f'what to evaluate (default: {",".join(SUITE)})',
    )
    config = 'of the pre-training, where the checkpoint does not carry it'
    add('--config', type=Path, help=config)
    out = 'folder for all results (default: below work_dirs/evaluation)'
    add('--out', type=Path, metavar='DIR', help=out)
    gpus = 'processes that train; learning rates follow (default: 1)'
    add('--gpus', type=int, default=1, metavar='N', help=gpus)


def run(args: Namespace) -> int:
    """Evaluate; 1 where a task failed."""
    return bool(evaluate(**vars(args), root=root_folder()).failed)


class _TaskError(Exception):
    """A task that broke off; the text is the reason."""


def evaluate(
    checkpoint: str,
    root: Path,
    data: Path = Path('data'),
    suite: Sequence[str] = tuple(SUITE),
    config: Path | None = None,
    out: Path | None = None,
    gpus: int = 1,
) -> Evaluation:
    """Evaluate a checkpoint on what the data allow and write one table.

    Args:
        checkpoint: A file of pre-training, or ``'random'``.
        root: Folder that holds ``configs`` and ``tools``.
        data: Folder of the data sets, by the names of ``DATASETS``.
        suite: Keys of ``SUITE``.
        config: Of the pre-training. Default: the one in the checkpoint.
        out: Folder for all results. Default: below ``work_dirs/evaluation``.
        gpus: Processes that train. Learning rates follow the batch size.

    Returns:
        What was measured, as it was written to ``evaluation.md`` and ``.json``.

    Raises:
        UserError: for settings that cannot be meant, data of which nothing can be
            run, and results of something else in ``out``.
    """
    suite = check_suite(suite)
    if gpus < 1:
        raise UserError(f'--gpus {gpus}: give a number of processes, 1 or more')
    student = read_student(checkpoint, config)
    tasks, left_out = make_plan(student, suite, data, root)
    evaluation = Evaluation(checkpoint, student.title, left_out=left_out)
    if not tasks:
        raise UserError(f'nothing can be run. {evaluation.left_out_sentence()}')
    out = default_folder(checkpoint, config) if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    print(f'{checkpoint}: {student.title}. Results go to {out}.', flush=True)
    if left_out:
        print(evaluation.left_out_sentence(), flush=True)
    probed = {x.dataset for x in tasks if x.kind == 'linear' and x.config is None}
    for number, task in enumerate(tasks, start=1):
        print(f'\n[{number}/{len(tasks)}] {task.title}', flush=True)
        try:
            run = _Run(task, student, root, out, gpus, task.dataset in probed)
            evaluation.rows += run.rows()
        except _TaskError as error:
            evaluation.failed.append(LeftOut(task.title, str(error)))
        # written as it grows: a long evaluation can be looked at before its end
        files = evaluation.save(out)
    print(f'\n{evaluation.markdown()}\n')
    for file in files:
        print(f'wrote {file}')
    return evaluation


def default_folder(checkpoint: str, config: Path | None) -> Path:
    """``work_dirs/evaluation/RUN-EPOCH``, or ``random-CONFIG``."""
    if checkpoint == RANDOM:
        name = f'random-{Path(config).stem}' if config else RANDOM
    else:
        path = Path(checkpoint).resolve()
        name = f'{path.parent.name}-{path.stem}'
    return Path('work_dirs', 'evaluation', name)


class _Run:
    """One task in its folder.

    ``probe_too`` says of a k-NN that a linear probe on the same features follows.
    """

    def __init__(
        self,
        task: Task,
        student: PretrainedStudent,
        root: Path,
        out: Path,
        gpus: int,
        probe_too: bool,
    ) -> None:
        self.task, self.student = task, student
        self.root, self.gpus, self.probe_too = root, gpus, probe_too
        self.folder = out / task.name
        self.result = self.folder / 'result.json'
        self.resumed = False

    def rows(self) -> list[Row]:
        """Run the task, unless its result is there."""
        self._remember_what_it_is_of(self.folder)
        if self.result.is_file():
            print(f'It is in {self.result} already.', flush=True)
            return [Row(**row) for row in json.loads(self.result.read_text())]
        if self.task.config is None:
            config, values, seconds = self._features()
        else:
            start = time.perf_counter()
            config, values = self.task.config, self._training(self.task.config)
            seconds = round(time.perf_counter() - start, 1)
        rows = [
            {
                'task': SUITE[self.task.kind],
                'data': DATASETS[self.task.dataset].title,
                'metric': metric,
                'value': value,
                'config': str(_below(config, self.root)),
                'seconds': seconds,
                'resumed': self.resumed,
            }
            for metric, value in values.items()
        ]
        write_json(self.result, rows)
        found = ', '.join(f'{name} {value:.2f}' for name, value in values.items())
        print(f'{self.task.title}: {found}, {duration(seconds)}', flush=True)
        return [Row(**row) for row in rows]

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
        folder = self.folder.with_name(f'features-{self.task.dataset}')
        self._remember_what_it_is_of(folder)
        # JSON is not run when it is read: settings may come from a checkpoint
        config = folder / 'features.json'
        features_config(
            self.student, self.task.dataset, self.task.folder, self.root
        ).dump(config)
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

    def _training(self, config: Path) -> dict[str, float]:
        """Train by the benchmark config, then test the last checkpoint."""
        data = ['--data-root', str(self.task.folder)]
        if self.task.options:
            data += ['--cfg-options', *self.task.options]
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
            raise _TaskError(f'training left no checkpoint in {self.folder}')
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
            raise _TaskError(
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
            raise _TaskError(
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
