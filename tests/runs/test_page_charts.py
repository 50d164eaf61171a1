"""Charts show the numbers that they are given."""

from __future__ import annotations

import base64
import math
import re

import pytest
from matplotlib.figure import Figure

from medic_mm.runs.charts import COLOURS, Chart, draw_chart, svg_address
from medic_mm.runs.page import _described, number_text


def svg_of(chart: Chart) -> str:
    kind, data = svg_address(chart).split(',')
    assert kind == 'data:image/svg+xml;base64'
    return base64.b64decode(data).decode()


def test_lines_are_the_points() -> None:
    curves = {
        'a': [(float(x), 3.0 + math.sin(x)) for x in range(10, 60)],
        'b': [(10.0, 0.02), (59.0, 40.0)],
    }
    axis = Figure().subplots()
    draw_chart(axis, Chart('T', curves))
    for line, points in zip(axis.lines, curves.values(), strict=True):
        assert list(zip(*line.get_data(), strict=True)) == points
    assert axis.get_yscale() == 'log'


@pytest.mark.parametrize('value', [0.0, 5.0, -3.0, 1e-12])
def test_a_flat_curve_and_a_single_point(value: float) -> None:
    for points in ([(3, value)], [(1, value), (2, value)]):
        svg = svg_of(Chart('T', {'a': points}, from_zero=value >= 0))
        assert 'nan' not in svg
        # a dot is a path that is placed by its name
        dots = re.findall(rf'<use xlink:href="#m[^>]*{COLOURS[0].lower()}', svg)
        assert len(dots) == (len(points) == 1)


def test_a_long_curve_stays_light_and_keeps_its_peak() -> None:
    points = [(float(x), math.sin(x / 50)) for x in range(100_000)]
    flat = len(svg_of(Chart('T', {'a': points})))
    points[54321] = (54321.0, 90.0)
    peak = svg_of(Chart('T', {'a': points}))
    assert flat < 500_000
    heights = [float(y) for y in re.findall(r'[ML] \S+ (\S+)', peak)]
    # the peak is drawn at the top of the frame, the rest at its bottom
    assert min(heights) < 20 < 150 < sorted(heights)[len(heights) // 2]


def test_a_dark_page_has_its_own_colours() -> None:
    svg = svg_of(Chart('T', {'a': [(0, 1.0), (1, 2.0)]}))
    assert '@media (prefers-color-scheme: dark)' in svg
    assert COLOURS[0].lower() in svg.partition('</style>')[2]
    for word in ('<script', '<metadata'):
        assert word not in svg


def test_the_legend_has_the_numbers() -> None:
    chart = Chart('T', {'a<b': [(0, 4.0), (1, 9.5), (2, 1.25), (3, 2.0)]})
    shown = _described(chart)
    (row,) = shown['rows']
    assert row[1:] == ['4', '2', '1.25', '9.5']
    assert row[0].endswith('</span>a&lt;b')
    assert shown['words'] == 'T over iteration: a<b from 4 to 2'


def test_numbers_in_words() -> None:
    assert [number_text(x) for x in (0, 0.5, 12345.6, 1e-5, 2e6)] == [
        *('0', '0.5', '1.235e+04', '1.00e-05', '2.00e+06')
    ]
