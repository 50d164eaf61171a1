"""Evaluate a pre-trained checkpoint on all the data there are; writes one table.

    medic-mm evaluate CHECKPOINT --data data --suite knn,linear

Which student it is, is read from the checkpoint; the benchmark configs that fit it are
found by themselves. CHECKPOINT may be the word ``random``: the student of --config
before training, for comparison. A second call goes on where the first one stopped.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medic_mm.checkpoints.saving import write_json, write_whole
from medic_mm.cli.evaluation_inputs import read_student
from medic_mm.cli.evaluation_plan import (
    SUITE,
    LeftOut,
    check_suite,
    make_plan,
)
from medic_mm.cli.evaluation_run import Row, Run, TaskError
from medic_mm.cli.main import root_folder
from medic_mm.errors import UserError
from medic_mm.settings.pretrained import RANDOM

_HEADINGS = ('task', 'data', 'metric', 'value', 'time', 'config')


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('checkpoint', help="checkpoint of pre-training, or 'random'")
    add(
        '--data',
        action='append',
        metavar='ROOT|NAME=FOLDER',
        help='folder that holds cifar10, imagenet, camvid, ADEChallengeData2016, or '
        'some of them (default: data); or a data set of your own: a FOLDER with '
        'train/ and val/, each with a folder for each class, or with images/ and '
        'annotations/, each with train/ and val/; can be given several times',
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


@dataclass
class Evaluation:
    """All that was measured of one checkpoint: rows, and tasks without a result."""

    checkpoint: str
    student: str
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    failed: list[LeftOut] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, with what it is of and what it lacks."""
        cells = [_HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        right = [name in ('value', 'time') for name in _HEADINGS]
        columns = list(zip(widths, right, strict=True))
        lines = [
            ' | '.join(
                f'{cell:>{width}}' if number else f'{cell:<{width}}'
                for cell, (width, number) in zip(row, columns, strict=True)
            )
            for row in cells
        ]
        lines = [f'| {line} |' for line in lines]
        rule = ['-' * (width + 1) + '-:'[number] for width, number in columns]
        lines.insert(1, f'|{"|".join(rule)}|')
        lines = [f'Evaluation of `{self.checkpoint}`, a {self.student}', '', *lines]
        failed = _reasons('Failed', self.failed)
        for text in (self.left_out_sentence(), failed):
            lines += ['', text] if text else []
        return '\n'.join(lines)

    def left_out_sentence(self) -> str:
        """What was left out and why; empty where nothing was."""
        return _reasons('Left out', self.left_out)

    def as_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    def save(self, folder: Path) -> list[Path]:
        """Write ``evaluation.md`` and ``evaluation.json``; returns their paths."""
        files = [folder / 'evaluation.md', folder / 'evaluation.json']
        write_whole(files[0], self.markdown() + '\n')
        write_json(files[1], self.as_dict())
        return files


def _reasons(title: str, tasks: Sequence[LeftOut]) -> str:
    """Tasks with the same reason are named together."""
    by_reason: dict[str, list[str]] = {}
    for task in tasks:
        by_reason.setdefault(task.reason, []).append(task.title)
    texts = [f'{", ".join(titles)} ({why})' for why, titles in by_reason.items()]
    return f'{title}: {"; ".join(texts)}.' if texts else ''


def evaluate(
    checkpoint: str,
    root: Path,
    data: Path | Sequence[str | Path] | None = None,
    suite: Sequence[str] = tuple(SUITE),
    config: Path | None = None,
    out: Path | None = None,
    gpus: int = 1,
) -> Evaluation:
    """Evaluate a checkpoint on what the data allow and write one table.

    Args:
        checkpoint: A file of pre-training, or ``'random'``.
        root: Folder that holds ``configs`` and ``tools``.
        data: Folders of data sets, by the names of ``DATASETS``, and data sets of
            one's own as ``'NAME=FOLDER'``. Default: ``data``.
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
    tasks, left_out = make_plan(student, suite, data or [Path('data')], root)
    evaluation = Evaluation(checkpoint, student.title, left_out=left_out)
    if not tasks:
        raise UserError(f'nothing can be run. {evaluation.left_out_sentence()}')
    out = default_folder(checkpoint, config) if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    print(f'{checkpoint}: {student.title}. Results go to {out}.', flush=True)
    if left_out:
        print(evaluation.left_out_sentence(), flush=True)
    probed = {x.data.name for x in tasks if x.kind == 'linear' and x.config is None}
    for number, task in enumerate(tasks, start=1):
        print(f'\n[{number}/{len(tasks)}] {task.title}', flush=True)
        try:
            run = Run(task, student, root, out, gpus, task.data.name in probed)
            evaluation.rows += run.rows()
        except TaskError as error:
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
