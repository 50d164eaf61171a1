"""Charts of curves by matplotlib: on the axes of a figure, or as SVG for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Curve = list[tuple[float, float]]

#: Distinct in grey and for colour-blind readers (Okabe and Ito).
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MUTED = '#555555'
_GRID = '#dddddd'
_STYLES = ('-', '--', ':')
_OVER_ANOTHER = (0, (4, 4))
_LOG_RANGE = 10.0
_COLUMNS = 3
_PANEL = (4.1, 2.7)  # inches
#: A dark page shows the same picture in these colours.
_DARK = {
    '#000000': '#a3adb8',
    _MUTED: '#a3adb8',
    _GRID: '#2a323c',
    COLOURS[0]: '#56b4e9',
    COLOURS[1]: '#ff8a3d',
    COLOURS[2]: '#2ecc9a',
    COLOURS[3]: '#e59ac6',
    COLOURS[4]: '#9bd3f5',
    COLOURS[5]: '#f0c04a',
}


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes:
        title: What it is, with its unit.
        curves: Label to points; at least one.
        across: What the steps are, such as ``'iteration'``.
        marked: Mark each point: there are few.
        from_zero: Let the heights start at 0.
    """

    title: str
    curves: Mapping[str, Curve]
    across: str = 'iteration'
    marked: bool = False
    from_zero: bool = False

    @property
    def log(self) -> bool:
        """Whether heights are logarithmic: positive ones over a wide range."""
        values = [v for points in self.curves.values() for _, v in points]
        values = [value for value in values if math.isfinite(value)]
        if self.from_zero or not values or min(values) <= 0:
            return False
        return max(values) / min(values) >= _LOG_RANGE


def line_styles(labels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and dashes of each label; dashes change where colours begin anew."""
    colours = islice(cycle(COLOURS), len(labels))
    return {
        label: dict(color=colour, ls=_STYLES[place // len(COLOURS) % len(_STYLES)])
        for place, (label, colour) in enumerate(zip(labels, colours, strict=True))
    }


def draw_chart(
    axis: Axes, chart: Chart, styles: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Draw a chart's lines on an axis.

    Args:
        axis: An empty axis.
        chart: What to draw.
        styles: Of each label, as :func:`line_styles` gives them.
    """
    styles = styles or line_styles(list(chart.curves))
    drawn: list[Curve] = []
    for label, points in chart.curves.items():
        xs, ys = zip(*points, strict=True)
        marker = 'o' if chart.marked or len(points) == 1 else None
        style = dict(styles[label])
        if points in drawn:  # what lies below must show through
            style['ls'] = _OVER_ANOTHER
        drawn.append(points)
        axis.plot(xs, ys, lw=1.8, marker=marker, ms=4, **style)
    if chart.log:
        axis.set_yscale('log')
    tidy_axis(axis, chart.from_zero)
    # half an iteration means nothing
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(chart.across)


def draw_charts(figure: Figure, charts: Sequence[Chart], labels: Sequence[str]) -> None:
    """All charts, three in a row, under one legend; sets the size of the figure.

    Args:
        figure: A figure without axes.
        charts: At least one.
        labels: Of all curves, in the order of their colours.
    """
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    legend_lines = -(-len(labels) // columns)
    width, height = _PANEL[0] * columns, _PANEL[1] * rows + 0.1 + 0.24 * legend_lines
    figure.set_size_inches(width, height)
    top = 1 - (0.1 + 0.24 * legend_lines) / height
    figure.set_layout_engine(
        'constrained', rect=(0, 0, 1, top), w_pad=0.09, h_pad=0.08, wspace=0.03
    )
    styles = line_styles(labels)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, chart in zip(axes, charts, strict=False):
        draw_chart(axis, chart, styles)
        axis.set_title(chart.title, loc='left', fontsize=11, weight='bold')
    for axis in axes[len(charts) :]:
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


def svg_address(chart: Chart) -> str:
    """The chart as the address of an SVG image that follows a page's colours."""
    # equal charts give equal files, and their words stay words
    settings = {'svg.fonttype': 'none', 'svg.hashsalt': 'chart'}
    with mpl.rc_context({**settings, 'font.family': 'sans-serif'}):
        figure = Figure(figsize=(5.2, 2.8), layout='constrained')
        axis = figure.subplots()
        draw_chart(axis, chart)
        axis.tick_params(labelsize=9)
        text = io.StringIO()
        nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(text, format='svg', transparent=True, metadata=nothing)
    rules = ' '.join(
        f'[style*="{kind}: {light.lower()}"] {{ {kind}: {dark} !important }}'
        for light, dark in _DARK.items()
        for kind in ('stroke', 'fill')
    )
    # words are black by default, without a style that says so
    rules += ' text { fill: #a3adb8 }'
    style = f'<style>@media (prefers-color-scheme: dark) {{ {rules} }}</style>'
    svg = text.getvalue().replace('<defs>', f'{style}<defs>', 1)
    return 'data:image/svg+xml;base64,' + base64.b64encode(svg.encode()).decode()


def draw_curves(
    axis: Axes,
    curves: dict[str, Curve],
    levels: dict[str, float] | None = None,
    markers: bool = False,
    log: bool = False,
    from_zero: bool = False,
) -> None:
    """Lines with their names at the right end, without a legend to look up.

    Args:
        axis: Where to draw.
        curves: Label to points.
        levels: Label to value of horizontal dashed lines, to compare with.
        markers: Mark each point.
        log: Logarithmic heights.
        from_zero: Let the heights start at 0.
    """
    if log:
        axis.set_yscale('log')
    ends: list[tuple[float, str, str]] = []
    for (label, points), colour in zip(curves.items(), COLOURS, strict=False):
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, color=colour, lw=2, marker='o' if markers else None, ms=4)
        ends.append((ys[-1], label, colour))
    for label, level in (levels or {}).items():
        axis.axhline(level, color=_MUTED, lw=1.2, ls=(0, (4, 3)))
        ends.append((level, label, _MUTED))
    tidy_axis(axis, from_zero)
    _label_ends(axis, ends)


def tidy_axis(axis: Axes, from_zero: bool = False) -> None:
    """Leave of the frame what helps to read the lines, after they are drawn.

    Args:
        axis: An axis with its lines.
        from_zero: Let the heights start at 0.
    """
    axis.margins(x=0.02)
    if from_zero:
        axis.set_ylim(bottom=0)
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(axis='y', color=_GRID, lw=0.8)
    axis.set_axisbelow(True)


def _label_ends(axis: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write labels right of the axis at their lines' heights, moved apart."""
    # settles limits and the axis' size; a subfigure cannot draw itself
    axis.figure.canvas.figure.draw_without_rendering()
    height = axis.get_window_extent().height
    size = 10.0
    gap = 1.25 * size * axis.figure.dpi / 72 / height
    to_axis = axis.transData + axis.transAxes.inverted()
    places = sorted(
        (to_axis.transform((0, value))[1], label, colour)
        for value, label, colour in ends
    )
    lowest = -1.0
    for place, label, colour in places:
        lowest = max(place, lowest + gap)
        axis.text(
            1.02,
            lowest,
            label,
            transform=axis.transAxes,
            color=colour,
            fontsize=size,
            va='center',
        )
