"""Line charts as inline SVG: they follow the page's colours and width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medic_mm.visualization.report.markup import Markup, join, table, tag
from medic_mm.visualization.report.run import Curve

#: More points than the width has pixels: the extremes of each column are kept.
MOST_POINTS = 400
_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 10, 40
#: Colours in the style sheet.
_COLOURS = 6


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes:
        title: Heading.
        curves: Label to points; at least one.
        across: What the steps are, such as ``'iteration'``.
        log: Logarithmic heights, where all values allow it.
        marked: A dot at each point, for few points.
        from_zero: Let the heights start at 0.
    """

    title: str
    curves: Mapping[str, Curve]
    across: str = 'iteration'
    log: bool = False
    marked: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class _Scale:
    """From values to places on the page, along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high = self._plain(self.low), self._plain(self.high)
        share = (self._plain(value) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def _plain(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        if self.log:
            return _log_ticks(self.low, self.high)
        step = nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def draw_chart(chart: Chart) -> Markup:
    """A chart with its title, and the ends of its curves in a table."""
    xs, ys = _scales(chart)
    lines = [
        _draw_curve(points, xs, ys, number, chart.marked)
        for number, points in enumerate(chart.curves.values())
    ]
    words = '; '.join(
        f'{label} from {number_text(points[0][1])} to {number_text(points[-1][1])}'
        for label, points in chart.curves.items()
    )
    picture = tag(
        'svg',
        *_draw_axes(chart, xs, ys),
        *lines,
        viewBox=f'0 0 {_WIDTH} {_HEIGHT}',
        role='img',
        aria_label=f'{chart.title} over {chart.across}: {words}',
        # for those who read the numbers back from the picture
        data_x=f'{xs.low!r} {xs.high!r}',
        data_y=f'{ys.low!r} {ys.high!r} {"log" if ys.log else "linear"}',
    )
    return tag('figure', tag('h3', chart.title), picture, _legend(chart))


def number_text(value: float) -> str:
    """A number in a few digits."""
    if value == 0:
        return '0'
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f'{value:.2e}'
    return f'{value:.4g}'


def nice_step(rough: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def thinned(points: Curve, most: int = MOST_POINTS) -> Curve:
    """At most about ``most`` points: the ends, and the extremes of each stretch."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) * 2 / most)
    kept = {0, len(points) - 1}
    for begin in range(0, len(points), stretch):
        inside = range(begin, min(begin + stretch, len(points)))
        kept.add(min(inside, key=lambda index: points[index][1]))
        kept.add(max(inside, key=lambda index: points[index][1]))
    return [points[index] for index in sorted(kept)]


def _scales(chart: Chart) -> tuple[_Scale, _Scale]:
    steps = [step for points in chart.curves.values() for step, _ in points]
    values = [value for points in chart.curves.values() for _, value in points]
    low, high = min(steps), max(steps)
    if low == high:
        low, high = low - 1, high + 1
    across = _Scale(low, high, _LEFT, _WIDTH - _RIGHT)
    bottom, top = min(values), max(values)
    log = chart.log and bottom > 0
    if chart.from_zero:
        bottom = min(bottom, 0.0)
    if log:
        bottom, top = bottom / 1.15, top * 1.15
    else:
        margin = 0.05 * (top - bottom) or 0.05 * abs(top) or 1.0
        bottom -= 0.0 if chart.from_zero and bottom == 0 else margin
        top += margin
    return across, _Scale(bottom, top, _HEIGHT - _BOTTOM, _TOP, log)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        found = [f * 10.0**p for p in powers for f in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 6)]
    return found


def _draw_curve(
    points: Curve, xs: _Scale, ys: _Scale, number: int, marked: bool
) -> Markup:
    shown = thinned(points)
    places = [(xs.place(step), ys.place(value)) for step, value in shown]
    kind = f'c{number % _COLOURS}' + (' dashed' if number >= _COLOURS else '')
    line = tag(
        'polyline',
        points=' '.join(f'{x:.2f},{y:.2f}' for x, y in places),
        class_=f'line {kind}',
    )
    if not marked and len(places) > 1:
        return line
    dots = [
        tag('circle', cx=f'{x:.2f}', cy=f'{y:.2f}', r='3', class_=f'dot {kind}')
        for x, y in places
    ]
    return Markup(line + ''.join(dots))


def _draw_axes(chart: Chart, xs: _Scale, ys: _Scale) -> list[Markup]:
    parts = []
    for value in ys.ticks():
        y = f'{ys.place(value):.1f}'
        parts.append(
            tag('line', x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_='grid')
        )
        parts.append(_text(_tick_text(value), _LEFT - 6, float(y) + 4.5, 'end'))
    base = _HEIGHT - _BOTTOM
    # whole steps: half an iteration means nothing
    for value in (value for value in xs.ticks() if value == round(value)):
        parts.append(_text(_tick_text(value), xs.place(value), base + 17, 'middle'))
    parts.append(
        tag('line', x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_='axis')
    )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(chart.across, middle, _HEIGHT - 6, 'middle'))
    return parts


def _line_across(y: str, kind: str) -> Markup:
    return tag('line', x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_=kind)


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return tag('text', text, x=f'{x:.1f}', y=f'{y:.1f}', text_anchor=anchor)


def _tick_text(value: float) -> str:
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f'{value:.0e}'.replace('e-0', 'e-').replace('e+0', 'e')
    return f'{round(value, 9):,g}' if abs(value) < 1000 else f'{value:,.0f}'


def _legend(chart: Chart) -> Markup:
    """The curves by colour, and their numbers."""
    rows = []
    for number, (label, points) in enumerate(chart.curves.items()):
        values = [value for _, value in points]
        kind = f'c{number % _COLOURS}' + (' dashed' if number >= _COLOURS else '')
        swatch = tag('span', class_=f'swatch {kind}', aria_hidden='true')
        ends = (values[0], values[-1], min(values), max(values))
        rows.append([join([swatch, label]), *map(number_text, ends)])
    heads: Sequence[str] = ('', 'first', 'last', 'lowest', 'highest')
    return table(heads, rows, f'{chart.title}: numbers', numbers=range(1, 5))
