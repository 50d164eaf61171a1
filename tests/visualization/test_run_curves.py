"""Curves of several runs: which panels there are, and what is drawn in them."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medic_mm.visualization.curves import COLOURS
from medic_mm.visualization.run_curves import (
    Panel,
    Run,
    compare_runs,
    draw_runs,
    line_styles,
)

KNN = 'knn/{}_top1_k{}'
MEDIC = {
    'loss': [(10, 9.0), (20, 0.5)],
    'loss_cls': [(10, 0.3), (20, 0.2)],
    'raw_cls': [(10, 3.0), (20, 2.0)],
    'loss_extra': [(10, 1.0), (20, 0.9)],
    'base_lr': [(10, 1e-3), (20, 1e-4)],
    'lr': [(10, 1e-5), (20, 1e-6)],
    'time': [(10, 0.5), (20, 0.25)],
    'epoch': [(10, 1), (20, 2)],
    KNN.format('mean', 10): [(0, 11.0)],
    KNN.format('mean', 20): [(0, 12.0), (2, 40.0)],
    KNN.format('cls', 10): [(0, 13.0), (2, 41.0)],
    'grad_norm': [(10, 1.0), (20, 0.9)],
}
MAE = {
    'loss': [(15, 2.0), (30, 1.0)],
    'lr': [(15, 2e-3), (30, 2e-4)],
    'time': [(15, 0.2), (30, 0.1)],
}


def by_title(panels: list[Panel]) -> dict[str, Panel]:
    found = {panel.title: panel for panel in panels}
    assert len(found) == len(panels)
    return found


def test_each_quantity_has_one_panel_with_the_runs_that_logged_it():
    panels = by_title(compare_runs([Run('a', MEDIC, 100), Run('b', MAE, 50)]))
    assert list(panels) == [
        'total loss',
        'class token loss, unweighted',
        'extra loss',
        'k-NN, class token, k = 10 (%)',
        'k-NN, mean patch, k = 20 (%)',
        'learning rate',
        'images per second',
        'gradient norm',
    ]
    expected = {
        'total loss': {'a': MEDIC['loss'], 'b': MAE['loss']},
        'class token loss, unweighted': {'a': MEDIC['raw_cls']},
        'extra loss': {'a': MEDIC['loss_extra']},
        'k-NN, class token, k = 10 (%)': {'a': MEDIC[KNN.format('cls', 10)]},
        'k-NN, mean patch, k = 20 (%)': {'a': MEDIC[KNN.format('mean', 20)]},
        # one of them has no base_lr, so both are shown by what both have
        'learning rate': {'a': MEDIC['lr'], 'b': MAE['lr']},
        'images per second': {
            'a': [(10, 200.0), (20, 400.0)],
            'b': [(15, 250.0), (30, 500.0)],
        },
        'gradient norm': {'a': MEDIC['grad_norm']},
    }
    for title, curves in expected.items():
        assert panels[title].curves == curves, title
    assert panels['k-NN, mean patch, k = 20 (%)'].xlabel == 'epoch'
    assert panels['gradient norm'].xlabel == 'iteration'
    # 9 to 0.5 needs a logarithmic axis, 3 to 2 does not
    assert panels['total loss'].log
    assert not panels['class token loss, unweighted'].log


def test_without_the_batch_of_every_run_time_is_shown_as_logged():
    panels = by_title(compare_runs([Run('a', MEDIC, 100), Run('b', MAE, None)]))
    curves = panels['seconds per iteration'].curves
    assert curves == {'a': MEDIC['time'], 'b': MAE['time']}
    assert 'images per second' not in panels
    # a run that logged no time does not need a batch
    silent = Run('c', {'loss': [(1, 1.0)]}, None)
    assert 'images per second' in by_title(compare_runs([Run('a', MEDIC, 1), silent]))


def test_base_rate_is_taken_where_all_have_it():
    panels = by_title(compare_runs([Run('a', MEDIC)]))
    assert panels['learning rate'].curves == {'a': MEDIC['base_lr']}


def test_benchmarks_show_their_own_terms_and_metrics():
    segmentation = {
        'loss': [(5, 3.0)],
        'decode.loss_ce': [(5, 2.0)],
        'aux.loss_ce': [(5, 1.0)],
        'mIoU': [(400, 20.0)],
    }
    panels = by_title(compare_runs([Run('a', segmentation)]))
    assert list(panels) == ['total loss', 'decode.loss_ce', 'aux.loss_ce', 'mIoU (%)']
    assert panels['mIoU (%)'].xlabel == 'iteration'
    probe = {'accuracy/top1': [(1, 30.0)], 'epoch': [(9, 1)], 'loss': [(9, 1.0)]}
    panels = by_title(compare_runs([Run('a', probe)]))
    assert panels['accuracy/top1 (%)'].xlabel == 'epoch'


@pytest.mark.parametrize(
    ('values', 'log'),
    [
        ([1.0, 10.0], True),
        ([1.0, 9.0], False),
        ([0.0, 10.0], False),
        ([-1.0, 10.0], False),
        ([float('nan'), 1.0, 100.0], True),
        ([float('nan')], False),
    ],
)
def test_heights_are_logarithmic_over_a_wide_range_of_positive_values(values, log):
    points = list(enumerate(values))
    assert Panel('', '', {'a': points}).log is log
    assert Panel('', '', {'a': points}, from_zero=True).log is False


def test_lines_are_the_points_in_the_colours_of_the_legend():
    runs = [Run('a', MEDIC, 100), Run('b', MAE, 50), Run('c', {'loss': MAE['loss']})]
    panels = compare_runs(runs)
    labels = [run.label for run in runs]
    figure = Figure()
    FigureCanvasAgg(figure)
    draw_runs(figure, panels, labels)
    figure.draw_without_rendering()
    assert [axis.get_title(loc='left') for axis in figure.axes] == [
        panel.title for panel in panels
    ]
    colour_of = dict(zip(labels, COLOURS, strict=False))
    for axis, panel in zip(figure.axes, panels, strict=True):
        assert axis.get_yscale() == ('log' if panel.log else 'linear')
        for line, (label, points) in zip(axis.lines, panel.curves.items(), strict=True):
            assert list(zip(*line.get_data(), strict=True)) == points
            assert line.get_color() == colour_of[label]
        if panel.from_zero:
            assert axis.get_ylim()[0] == 0
    # the third run's loss is the second's: dashed, so that both are seen
    loss = figure.axes[0].lines
    assert [line.is_dashed() for line in loss] == [False, False, True]
    (legend,) = figure.legends
    shown = [
        (text.get_text(), line.get_color())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    ]
    assert shown == list(colour_of.items())


def test_no_two_of_many_runs_look_alike():
    labels = [str(number) for number in range(18)]
    styles = [tuple(style.values()) for style in line_styles(labels).values()]
    assert len(set(styles)) == 18
