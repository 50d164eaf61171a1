"""Curves: read across resumed runs, labelled without overlap."""

import json
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from medic_mm.errors import UserError
from medic_mm.runs.charts import draw_curves
from medic_mm.runs.run import read_run


def write(folder, run, records):
    data = folder / run / 'vis_data'
    data.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (data / 'scalars.json').write_text('\n'.join(lines) + '\n')


def test_a_resumed_run_continues_and_overrides(tmp_path):
    knn = 'knn/cls_top1_k20'
    write(
        tmp_path,
        '20250101_000000',
        [
            {knn: 12.0, 'step': 0},
            {'loss': 3.0, 'lr': 1e-3, 'step': 10},
            {'loss': 2.0, 'step': 20},
            {'loss': 9.0, 'step': 30},
        ],
    )
    write(
        tmp_path,
        '20250101_010000',
        [{'loss': 1.5, 'step': 30}, {knn: 40.0, 'step': 2}, {'note': 'x', 'step': 40}],
    )
    assert read_run(tmp_path).curves == {
        knn: [(0, 12.0), (2, 40.0)],
        'loss': [(10, 3.0), (20, 2.0), (30, 1.5)],
        'lr': [(10, 1e-3)],
    }


def test_a_folder_without_a_log_is_named(tmp_path):
    with pytest.raises(UserError, match=f'{tmp_path} holds no run'):
        read_run(tmp_path)


def test_a_run_that_starts_over_leaves_nothing_of_the_one_before(tmp_path):
    write(tmp_path, '1', [{'loss': 3.0, 'step': 10}, {'loss': 2.0, 'step': 20}])
    write(tmp_path, '2', [{'loss': 9.0, 'step': 10}, {'loss': 8.0, 'step': 15}])
    assert read_run(tmp_path).curves == {'loss': [(10, 9.0), (15, 8.0)]}
    assert read_run(tmp_path / '1').curves == {'loss': [(10, 3.0), (20, 2.0)]}


def test_torn_lines_are_counted(tmp_path):
    write(tmp_path, '1', [{'loss': 3.0, 'step': 10}, {'loss': 2.0, 'step': 20}])
    log = tmp_path / '1' / 'vis_data' / 'scalars.json'
    log.write_text('nothing\n' + log.read_text() + '{"loss": 1.0, "st')
    run = read_run(tmp_path)
    assert run.curves == {'loss': [(10, 3.0), (20, 2.0)]}
    assert run.torn == 2


@pytest.mark.parametrize('how', [{}, {'log': True}, {'from_zero': True}])
def test_labels_stand_at_their_lines_and_apart(how):
    figure = Figure(figsize=(6, 4))
    axis = figure.subplots()
    curves = {
        'far': [(0, 1.0), (9, 90.0)],
        'near': [(0, 2.0), (9, 20.0)],
        'nearer': [(0, 3.0), (9, 20.2)],
    }
    draw_curves(axis, curves, {'level': 20.1}, **how)
    for line, points in zip(axis.lines, curves.values(), strict=False):
        assert list(zip(*line.get_data(), strict=True)) == points
    assert list(axis.lines[-1].get_ydata()) == [20.1, 20.1]
    figure.draw_without_rendering()
    assert (axis.get_ylim()[0] == 0) == ('from_zero' in how)
    boxes = {text.get_text(): text.get_window_extent() for text in axis.texts}
    assert set(boxes) == {'far', 'near', 'nearer', 'level'}
    ordered = sorted(boxes.values(), key=lambda box: box.y0)
    for lower, upper in pairwise(ordered):
        assert upper.y0 >= lower.y1 - 1, 'labels overlap'
    for label in ('far', 'near'):
        end = axis.transData.transform(curves[label][-1])[1]
        assert boxes[label].y0 <= end <= boxes[label].y1
