"""Curves of several runs: which charts there are, and what is drawn in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medic_mm.pictures.curves import compare_runs
from medic_mm.runs.charts import COLOURS, Chart, draw_charts, line_styles
from medic_mm.runs.run import Run

KNN = 'knn/{}_top1_k{}'
MEDIC = {
    'loss': [(10, 9.0), (20, 0.5)],
    'loss_cls': [(10, 0.3), (20, 0.2)],
    'raw_cls': [(10, 3.0), (20, 2.0)],
    'loss_extra': [(10, 1.0), (20, 0.9)],
    'base_lr': [(10, 1e-3), (20, 1e-4)],
    'lr': [(10, 1e-5), (20, 1e-6)],
    'time': [(10, 0.5), (20, 0.25)],
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


def run_of(curves: dict, batch: int | None = None) -> Run:
    """A run on one machine, with these curves."""
    config = {} if batch is None else dict(train_dataloader=dict(batch_size=batch))
    return Run(Path(), [], config=config, curves=curves)


def by_title(charts: list[Chart]) -> dict[str, Chart]:
    found = {chart.title: chart for chart in charts}
    assert len(found) == len(charts)
    return found


def test_each_quantity_has_one_chart_with_the_runs_that_logged_it():
    charts = by_title(compare_runs(dict(a=run_of(MEDIC, 100), b=run_of(MAE, 50))))
    assert list(charts) == [
        'total loss',
        'cls loss, unweighted',
        'extra loss',
        'k-NN, class token, k = 10 (%)',
        'k-NN, mean patch, k = 20 (%)',
        'learning rate',
        'images per second',
        'gradient norm',
    ]
    expected = {
        'total loss': {'a': MEDIC['loss'], 'b': MAE['loss']},
        'cls loss, unweighted': {'a': MEDIC['raw_cls']},
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
        assert charts[title].curves == curves, title
    assert charts['k-NN, mean patch, k = 20 (%)'].across == 'epoch'
    assert charts['gradient norm'].across == 'iteration'
    # 9 to 0.5 needs a logarithmic axis, 3 to 2 does not
    assert charts['total loss'].log
    assert not charts['cls loss, unweighted'].log


def test_without_the_batch_of_every_run_time_is_shown_as_logged():
    charts = by_title(compare_runs(dict(a=run_of(MEDIC, 100), b=run_of(MAE, None))))
    curves = charts['seconds per iteration'].curves
    assert curves == {'a': MEDIC['time'], 'b': MAE['time']}
    assert 'images per second' not in charts
    # a run that logged no time does not need a batch
    silent = run_of({'loss': [(1, 1.0)]})
    assert 'images per second' in by_title(
        compare_runs(dict(a=run_of(MEDIC, 1), c=silent))
    )


def test_base_rate_is_taken_where_all_have_it():
    charts = by_title(compare_runs(dict(a=run_of(MEDIC))))
    assert charts['learning rate'].curves == {'a': MEDIC['base_lr']}


def test_benchmarks_show_their_own_terms_and_metrics():
    segmentation = {
        'loss': [(5, 3.0)],
        'decode.loss_ce': [(5, 2.0)],
        'aux.loss_ce': [(5, 1.0)],
        'mIoU': [(400, 20.0)],
    }
    charts = by_title(compare_runs(dict(a=run_of(segmentation))))
    assert list(charts) == ['total loss', 'decode.loss_ce', 'aux.loss_ce', 'mIoU (%)']
    assert charts['mIoU (%)'].across == 'iteration'
    probe = run_of({'accuracy/top1': [(1, 30.0)], 'loss': [(9, 1.0)]})
    probe.records = [dict(epoch=1, loss=1.0, step=9)]
    charts = by_title(compare_runs(dict(a=probe)))
    assert charts['accuracy/top1 (%)'].across == 'epoch'


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
    assert Chart('', {'a': points}).log is log
    assert Chart('', {'a': points}, from_zero=True).log is False


def test_lines_are_the_points_in_the_colours_of_the_legend():
    third = run_of({'loss': MAE['loss']})
    runs = dict(a=run_of(MEDIC, 100), b=run_of(MAE, 50), c=third)
    charts = compare_runs(runs)
    labels = list(runs)
    figure = Figure()
    FigureCanvasAgg(figure)
    draw_charts(figure, charts, labels)
    figure.draw_without_rendering()
    assert [axis.get_title(loc='left') for axis in figure.axes] == [
        chart.title for chart in charts
    ]
    colour_of = dict(zip(labels, COLOURS, strict=False))
    for axis, chart in zip(figure.axes, charts, strict=True):
        assert axis.get_yscale() == ('log' if chart.log else 'linear')
        for line, (label, points) in zip(axis.lines, chart.curves.items(), strict=True):
            assert list(zip(*line.get_data(), strict=True)) == points
            assert line.get_color() == colour_of[label]
        if chart.from_zero:
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
