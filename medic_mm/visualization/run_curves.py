"""What to compare of training runs: one panel for each quantity, one line a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medic_mm.visualization.curves import COLOURS, Curve, tidy_axis

_TERM_NAMES = {
    'token': 'token',
    'cls': 'class token',
    'pixel': 'pixel',
    'qk': 'Q-K relation',
    'vv': 'V-V relation',
}
_FEATURES = {'cls': 'class token', 'mean': 'mean patch'}
_USUAL_K = 20
#: Of validation during benchmarks; the values are in %.
_METRICS = ('accuracy/top1', 'mIoU')
_LOG_RANGE = 10.0
_COLUMNS = 3
_PANEL = (4.1, 2.7)  # inches
_STYLES = ('-', '--', ':')
_OVER_ANOTHER = (0, (4, 4))


@dataclass(frozen=True)
class Run:
    """What one run logged.

    Attributes:
        label: Its name in legends.
        curves: Name of a scalar to its points, as :func:`read_curves` gives them.
        batch_size: Images that one iteration takes; None where it is not known.
    """

    label: str
    curves: Mapping[str, Curve]
    batch_size: int | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity of several runs.

    Attributes:
        title: What it is, with its unit.
        xlabel: What its steps are.
        curves: Label of a run to its points; runs without the quantity are left out.
        markers: Mark each point: there are few.
        from_zero: The heights start at 0.
    """

    title: str
    xlabel: str
    curves: Mapping[str, Curve]
    markers: bool = False
    from_zero: bool = False

    @property
    def log(self) -> bool:
        """Whether heights are logarithmic: positive ones over a wide range."""
        values = [v for points in self.curves.values() for _, v in points]
        values = [value for value in values if math.isfinite(value)]
        if self.from_zero or not values or min(values) <= 0:
            return False
        return max(values) / min(values) >= _LOG_RANGE


def compare_runs(runs: Sequence[Run]) -> list[Panel]:
    """Panels of what at least one run has logged.

    In this order: the total loss, each of its terms (before weighting where that is
    logged), k-NN accuracy of both features, other accuracies, learning rate, throughput
    and gradient norm.
    """
    return [
        *_losses(runs),
        *_neighbours(runs),
        *_metrics(runs),
        *_panel(
            runs, _first_of(runs, 'base_lr', 'lr'), 'learning rate', from_zero=True
        ),
        *_throughput(runs),
        *_panel(runs, 'grad_norm', 'gradient norm'),
    ]


def draw_runs(figure: Figure, panels: Sequence[Panel], labels: Sequence[str]) -> None:
    """All panels, three in a row, under one legend; sets the size of the figure.

    Args:
        figure: A figure without axes.
        panels: At least one.
        labels: Of all runs, in the order of their colours.
    """
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    legend_lines = -(-len(labels) // columns)
    width, height = _PANEL[0] * columns, _PANEL[1] * rows + 0.1 + 0.24 * legend_lines
    figure.set_size_inches(width, height)
    top = 1 - (0.1 + 0.24 * legend_lines) / height
    figure.set_layout_engine(
        'constrained', rect=(0, 0, 1, top), w_pad=0.09, h_pad=0.08, wspace=0.03
    )
    styles = line_styles(labels)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, styles)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.legend(
        handles=[Line2D([], [], lw=2.5, label=k, **styles[k]) for k in labels],
        loc='upper left',
        bbox_to_anchor=(0.08 / width, 1 - 0.02 / height),
        ncols=columns,
        frameon=False,
        fontsize=11,
        borderaxespad=0.2,
    )


def line_styles(labels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and dashes of each run; dashes change where colours begin anew."""
    colours = islice(cycle(COLOURS), len(labels))
    return {
        label: dict(color=colour, ls=_STYLES[place // len(COLOURS) % len(_STYLES)])
        for place, (label, colour) in enumerate(zip(labels, colours, strict=True))
    }


def _draw_panel(
    axis: Axes, panel: Panel, styles: Mapping[str, Mapping[str, str]]
) -> None:
    drawn: list[Curve] = []
    for label, points in panel.curves.items():
        xs, ys = zip(*points, strict=True)
        marker = 'o' if panel.markers or len(points) == 1 else None
        style = dict(styles[label])
        if points in drawn:  # what lies below must show through
            style['ls'] = _OVER_ANOTHER
        drawn.append(points)
        axis.plot(xs, ys, lw=1.8, marker=marker, ms=4, **style)
    if panel.log:
        axis.set_yscale('log')
    tidy_axis(axis, panel.from_zero)
    axis.set_xlabel(panel.xlabel)
    axis.set_title(panel.title, loc='left', fontsize=11, weight='bold')


def _panel(
    runs: Sequence[Run], name: str, title: str, xlabel: str = 'iteration', **how: bool
) -> Iterator[Panel]:
    """A panel of one scalar, if any run has it."""
    curves = {run.label: run.curves[name] for run in runs if run.curves.get(name)}
    if curves:
        yield Panel(title, xlabel, curves, **how)


def _names(runs: Sequence[Run]) -> list[str]:
    """All names of scalars, in the order of the runs."""
    return list(dict.fromkeys(name for run in runs for name in run.curves))


def _first_of(runs: Sequence[Run], *names: str) -> str:
    """The first name that every run has; else the last."""
    common = [n for n in names if all(run.curves.get(n) for run in runs)]
    return common[0] if common else names[-1]


def _losses(runs: Sequence[Run]) -> Iterator[Panel]:
    names = _names(runs)
    yield from _panel(runs, 'loss', 'total loss')
    terms = [name for name in names if 'loss' in name and name != 'loss']
    for name in terms:
        term = name.removeprefix('loss_')
        title = f'{_TERM_NAMES.get(term, term)} loss' if term != name else name
        if f'raw_{term}' in names:
            yield from _panel(runs, f'raw_{term}', f'{title}, unweighted')
        elif len(terms) > 1 or 'loss' not in names:
            yield from _panel(runs, name, title)


def _neighbours(runs: Sequence[Run]) -> Iterator[Panel]:
    found = [re.fullmatch(r'knn/(\w+)_top1_k(\d+)', name) for name in _names(runs)]
    ks: dict[str, list[int]] = {}
    for match in filter(None, found):
        ks.setdefault(match[1], []).append(int(match[2]))
    for feature in sorted(ks, key=[*_FEATURES, *ks].index):
        k = _USUAL_K if _USUAL_K in ks[feature] else min(ks[feature])
        yield from _panel(
            runs,
            f'knn/{feature}_top1_k{k}',
            f'k-NN, {_FEATURES.get(feature, feature)}, k = {k} (%)',
            'epoch',
            markers=True,
            from_zero=True,
        )


def _metrics(runs: Sequence[Run]) -> Iterator[Panel]:
    # epochs are logged by loops that count them, and then they are the steps
    steps = 'epoch' if any('epoch' in run.curves for run in runs) else 'iteration'
    for name in _METRICS:
        yield from _panel(
            runs, name, f'{name} (%)', steps, markers=True, from_zero=True
        )


def _throughput(runs: Sequence[Run]) -> Iterator[Panel]:
    """Images a second where every run's batch is known, else seconds an iteration."""
    timed = [run for run in runs if run.curves.get('time')]
    if any(run.batch_size is None for run in timed):
        yield from _panel(runs, 'time', 'seconds per iteration', from_zero=True)
    elif timed:
        curves = {
            run.label: [(s, run.batch_size / t) for s, t in run.curves['time'] if t > 0]
            for run in timed
        }
        yield Panel('images per second', 'iteration', curves, from_zero=True)
