"""Curves of training runs, one line each: ``visualize.py curves``."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from medic_mm.errors import UserError
from medic_mm.helpers import listed
from medic_mm.pictures import Drawn, register_picture
from medic_mm.pictures.common import save_figure
from medic_mm.runs.charts import Chart, draw_charts
from medic_mm.runs.curves import FEATURES
from medic_mm.runs.run import Run, read_run

_SUFFIXES = ('.png', '.pdf', '.svg')
_USUAL_K = 20
#: Of validation during benchmarks; the values are in %.
_METRICS = ('accuracy/top1', 'mIoU')


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_curves`."""
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='RUN', help='work folder of a run'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='file, or folder for curves.png'
    )
    parser.add_argument('--labels', nargs='+', help='a name for each run')


@register_picture(
    'curves', 'losses, k-NN, learning rate and speed of training runs', add_arguments
)
def visualize_curves(
    runs: Sequence[str | Path], out: str | Path, labels: Sequence[str] | None = None
) -> Drawn:
    """Draw losses, k-NN accuracy, learning rate, throughput and gradient norm of runs.

    ``out`` is a file (``.png``, ``.pdf`` or ``.svg``), or a folder for ``curves.png``.
    By default runs are called by their folders.

    Raises:
        UserError: for a folder without a run, labels that do not fit the runs, or a
            file of another suffix.
    """
    path = _output(Path(out))
    names = _names(runs, labels)
    found = {name: read_run(Path(run)) for name, run in zip(names, runs, strict=True)}
    charts = compare_runs(found)
    if not charts:
        raise UserError(
            f'the logs of {", ".join(map(str, runs))} have no losses, k-NN accuracies '
            'or times to draw'
        )
    figure = Figure()
    draw_charts(figure, charts, names)
    notes = [note for name, run in found.items() for note in _left_out(name, run)]
    return Drawn([save_figure(figure, path)], notes)


def compare_runs(runs: Mapping[str, Run]) -> list[Chart]:
    """Charts of what at least one run has logged, by the labels of the runs.

    In this order: the total loss, each of its terms (before weighting where that is
    logged), k-NN accuracy of both features, other accuracies, learning rate, throughput
    and gradient norm.
    """
    return [
        *_losses(runs),
        *_neighbours(runs),
        *_metrics(runs),
        *_chart(
            runs, _first_of(runs, 'base_lr', 'lr'), 'learning rate', from_zero=True
        ),
        *_throughput(runs),
        *_chart(runs, 'grad_norm', 'gradient norm'),
    ]


def _chart(
    runs: Mapping[str, Run], name: str, title: str, across: str = 'iteration', **how
) -> Iterator[Chart]:
    """A chart of one scalar, if any run has it."""
    curves = {k: run.curves[name] for k, run in runs.items() if run.curves.get(name)}
    if curves:
        yield Chart(title, curves, across, **how)


def _scalars(runs: Mapping[str, Run]) -> list[str]:
    """All names of scalars, in the order of the runs."""
    return list(dict.fromkeys(name for run in runs.values() for name in run.curves))


def _first_of(runs: Mapping[str, Run], *names: str) -> str:
    """The first name that every run has; else the last."""
    common = [n for n in names if all(run.curves.get(n) for run in runs.values())]
    return common[0] if common else names[-1]


def _losses(runs: Mapping[str, Run]) -> Iterator[Chart]:
    names = _scalars(runs)
    yield from _chart(runs, 'loss', 'total loss')
    terms = [name for name in names if 'loss' in name and name != 'loss']
    for name in terms:
        term = name.removeprefix('loss_')
        title = f'{term} loss' if term != name else name
        if f'raw_{term}' in names:
            yield from _chart(runs, f'raw_{term}', f'{title}, unweighted')
        elif len(terms) > 1 or 'loss' not in names:
            yield from _chart(runs, name, title)


def _neighbours(runs: Mapping[str, Run]) -> Iterator[Chart]:
    found = [re.fullmatch(r'knn/(\w+)_top1_k(\d+)', name) for name in _scalars(runs)]
    ks: dict[str, list[int]] = {}
    for match in filter(None, found):
        ks.setdefault(match[1], []).append(int(match[2]))
    for feature in sorted(ks, key=[*FEATURES, *ks].index):
        k = _USUAL_K if _USUAL_K in ks[feature] else min(ks[feature])
        yield from _chart(
            runs,
            f'knn/{feature}_top1_k{k}',
            f'k-NN, {FEATURES.get(feature, feature)}, k = {k} (%)',
            'epoch',
            marked=True,
            from_zero=True,
        )


def _metrics(runs: Mapping[str, Run]) -> Iterator[Chart]:
    # loops that count epochs log an epoch, and then it is the step
    by_epoch = any('epoch' in record for run in runs.values() for record in run.records)
    steps = 'epoch' if by_epoch else 'iteration'
    for name in _METRICS:
        yield from _chart(runs, name, f'{name} (%)', steps, marked=True, from_zero=True)


def _throughput(runs: Mapping[str, Run]) -> Iterator[Chart]:
    """Images a second where every run's batch is known, else seconds an iteration."""
    timed = {label: run for label, run in runs.items() if run.curves.get('time')}
    if any(run.images_per_iteration is None for run in timed.values()):
        yield from _chart(runs, 'time', 'seconds per iteration', from_zero=True)
    elif timed:
        curves = {}
        for label, run in timed.items():
            images = run.images_per_iteration
            curves[label] = [(s, images / t) for s, t in run.curves['time'] if t > 0]
        yield Chart('images per second', curves, from_zero=True)


def _left_out(label: str, run: Run) -> Iterator[str]:
    """What of a run is not drawn, in sentences."""
    if run.torn:
        yield f'{label}: {run.torn} line(s) of the scalars cannot be read.'
    if run.not_finite:
        names = listed(run.not_finite)
        yield f'{label}: NaN or infinite values are left out of {names}.'


def _output(out: Path) -> Path:
    if out.is_dir() or not out.suffix:
        return out / 'curves.png'
    if out.suffix not in _SUFFIXES:
        raise UserError(
            f'--out {out}: give a folder, or a file ending in {", ".join(_SUFFIXES)}'
        )
    return out


def _names(runs: Sequence[str | Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each run: the folder's, with as many parents as tell them apart."""
    if labels is not None:
        if len(labels) != len(runs):
            raise UserError(
                f'--labels has {len(labels)} names for {len(runs)} runs: give one for '
                'each'
            )
        names = list(labels)
    else:
        paths = [Path(run).resolve() for run in runs]
        depth = 1
        names = [path.name for path in paths]
        while len(set(names)) < len(set(paths)):
            depth += 1
            names = ['/'.join(path.parts[-depth:]) for path in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'two runs are called {twice[0]!r}: give each its own label')
    return names
