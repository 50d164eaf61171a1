"""Charts show the numbers that they are given."""

from __future__ import annotations

import math
import re

import pytest

from medic_mm.visualization.report.charts import (
    Chart,
    draw_chart,
    nice_step,
    number_text,
    thinned,
)


def read_back(page: str) -> list[list[tuple[float, float]]]:
    """Points of each line of one chart, from its places on the page."""
    view = re.search(r'viewBox="0 0 (\d+) (\d+)"', page)
    low_x, high_x = map(float, re.search(r'data-x="(\S+) (\S+)"', page).groups())
    low, high, kind = re.search(r'data-y="(\S+) (\S+) (\w+)"', page).groups()
    low_y, high_y = float(low), float(high)
    axis = re.search(r'<line x1="(\d+)" x2="(\d+)" y1="(\d+)" [^>]*class="axis"', page)
    left, right, base = map(float, axis.groups())
    lines = []
    for places in re.findall(r'<polyline points="([^"]*)"', page):
        points = []
        for place in places.split():
            x, y = map(float, place.split(','))
            assert 0 <= x <= float(view[1])
            assert 0 <= y <= float(view[2])
            across = (x - left) / (right - left)
            up = (base - y) / (base - 10)
            if kind == 'log':
                value = low_y * (high_y / low_y) ** up
            else:
                value = low_y + up * (high_y - low_y)
            points.append((low_x + across * (high_x - low_x), value))
        lines.append(points)
    return lines


@pytest.mark.parametrize('log', [False, True])
def test_lines_are_the_points(log: bool) -> None:
    curves = {
        'a': [(float(x), 3.0 + math.sin(x)) for x in range(10, 60)],
        'b': [(10.0, 0.02), (59.0, 40.0)],
    }
    found = read_back(draw_chart(Chart('T', curves, log=log)))
    for line, points in zip(found, curves.values(), strict=True):
        for (x, y), (step, value) in zip(line, points, strict=True):
            assert x == pytest.approx(step, abs=0.01)
            assert y == pytest.approx(value, rel=1e-3, abs=2e-3)


def test_log_is_dropped_where_a_value_forbids_it() -> None:
    chart = Chart('T', {'a': [(0, 1.0), (1, 0.0)]}, log=True)
    assert ' linear"' in draw_chart(chart)


@pytest.mark.parametrize('value', [0.0, 5.0, -3.0, 1e-12])
def test_a_flat_curve_and_a_single_point(value: float) -> None:
    for points in ([(3, value)], [(1, value), (2, value)]):
        page = draw_chart(Chart('T', {'a': points}, from_zero=value >= 0))
        assert 'nan' not in page
        assert read_back(page)[0][0][1] == pytest.approx(value, abs=0.02)
    assert 'circle' in draw_chart(Chart('T', {'a': [(3, value)]}))


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(x), math.sin(x / 50)) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[77] = (77.0, -9.0)
    kept = thinned(points, most=200)
    assert len(kept) <= 204
    assert kept == sorted(set(kept))
    assert {points[0], points[-1], points[4321], points[77]} <= set(kept)
    assert set(kept) <= set(points)
    assert thinned(points[:200], most=200) == points[:200]


def test_the_legend_has_the_numbers() -> None:
    page = draw_chart(Chart('T', {'a': [(0, 4.0), (1, 9.5), (2, 1.25), (3, 2.0)]}))
    cells = re.findall(r'<td class="number">([^<]*)</td>', page)
    assert cells == ['4', '2', '1.25', '9.5']
    assert 'aria-label="T over iteration: a from 4 to 2"' in page


def test_numbers_and_steps_in_words() -> None:
    assert [number_text(x) for x in (0, 0.5, 12345.6, 1e-5, 2e6)] == [
        *('0', '0.5', '1.235e+04', '1.00e-05', '2.00e+06')
    ]
    assert [nice_step(x) for x in (0.03, 1, 1.1, 40, 70)] == [
        pytest.approx(x) for x in (0.05, 1, 2, 50, 100)
    ]
