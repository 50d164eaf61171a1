"""Which curves of a run stand in which chart."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medic_mm.visualization.report.charts import Chart, draw_chart
from medic_mm.visualization.report.facts import images_per_iteration
from medic_mm.visualization.report.markup import Markup, table, tag
from medic_mm.visualization.report.run import Curve, Run

_TOP = re.compile(r'^knn/(\w+)_top1_k(\d+)$')
_RANK = re.compile(r'^knn/(\w+)_rankme$')
#: Does not break at the end of a line.
_K = 'k\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}'
_FEATURES = {'cls': 'class token', 'mean': 'mean patch'}
#: Beginning of names to title, of numbers that are watched and not trained on.
_HEALTH = {
    'std_': 'Spread of the class tokens (1 isotropic, 0 collapsed)',
    'cos_student_': "Mean cosine of the student's heads (1 alike)",
    'cos_': 'Cosine of student and teacher',
    'entropy_': 'Entropy of the head weights, in nats',
    'used_heads_': 'Effective number of teacher heads in use',
    'grad_norm': 'Norm of the gradient',
}
_PLACED = ('loss', 'raw_', 'knn/', 'lr', 'base_lr', 'time', 'data_time', *_HEALTH)


def draw_curves_of(run: Run) -> Markup:
    """All charts; nothing where there are no scalars."""
    charts = [*_charts(run)]
    if not charts:
        return Markup('')
    return tag('div', *(draw_chart(chart) for chart in charts), class_='charts')


def knn_table(run: Run) -> Markup:
    """Each evaluation by k-NN as a row; nothing where there was none."""
    names = [name for name in run.curves if name.startswith('knn/')]
    if not names:
        return Markup('')
    columns = {name: dict(run.curves[name]) for name in names}
    steps = sorted({step for column in columns.values() for step in column})
    rows = [
        [
            '0 (start)' if step == 0 else f'{step:g}',
            *(_cell(column.get(step)) for column in columns.values()),
        ]
        for step in steps
    ]
    heads = [_knn_step(run), *(_knn_head(name) for name in names)]
    return table(heads, rows, 'k-NN over epochs', numbers=range(len(heads)))


def _charts(run: Run) -> Iterable[Chart]:
    curves = run.curves
    raw = _chosen(curves, lambda name: name.startswith('raw_'), len('raw_'))
    weighted = {n: c for n, c in curves.items() if re.match(r'^loss(_|$)', n)}
    if raw:
        yield Chart('Loss terms, unweighted', raw, log=True)
    if weighted:
        # the total last, so that a term has the same colour in both charts
        weighted.update({n: weighted.pop(n) for n in ('loss',) if n in weighted})
        yield Chart('Loss, as trained on', weighted, log=True)
    yield from _knn_charts(run)
    rates = {name: curves[name] for name in ('lr', 'base_lr') if name in curves}
    if len(rates) == 2 and rates['lr'] == rates['base_lr']:
        del rates['base_lr']
    if rates:
        yield Chart('Learning rate', rates, from_zero=True)
    yield from _speed(run)
    yield from _health(curves)
    rest = {n: c for n, c in curves.items() if not n.startswith(_PLACED)}
    for name, curve in rest.items():
        yield Chart(name, {name: curve}, across='step', marked=len(curve) < 50)


def _chosen(curves: dict[str, Curve], wanted, cut: int = 0) -> dict[str, Curve]:
    return {name[cut:]: curve for name, curve in curves.items() if wanted(name)}


def _knn_charts(run: Run) -> Iterable[Chart]:
    for pattern, title in ((_TOP, 'k-NN top-1 accuracy in %'), (_RANK, 'RankMe')):
        found = {
            _label(match): run.curves[match.string]
            for name in run.curves
            if (match := pattern.match(name))
        }
        if found:
            across = f'{_knn_step(run)} (0: before training)'
            yield Chart(title, found, across, marked=True, from_zero=True)


def _label(match: re.Match) -> str:
    feature = _FEATURES.get(match[1], match[1])
    return feature if match.re is _RANK else f'{feature}, k = {match[2]}'


def _speed(run: Run) -> Iterable[Chart]:
    if 'time' not in run.curves:
        return
    images = images_per_iteration(run)
    if images is not None:
        rate = [
            (step, images / seconds) for step, seconds in run.curves['time'] if seconds
        ]
        yield Chart('Throughput, images per second', {'images': rate}, from_zero=True)
    names = {'time': 'iteration', 'data_time': 'waiting for data'}
    parts = {label: run.curves[n] for n, label in names.items() if n in run.curves}
    yield Chart('Seconds per iteration', parts, from_zero=True)


def _health(curves: dict[str, Curve]) -> Iterable[Chart]:
    left = dict(curves)
    for beginning, title in _HEALTH.items():
        found = {
            name: left.pop(name) for name in list(left) if name.startswith(beginning)
        }
        if found:
            yield Chart(title, found)


def _knn_step(run: Run) -> str:
    for hook in run.config.get('custom_hooks') or []:
        if isinstance(hook, dict) and str(hook.get('type')).endswith('KNNHook'):
            return 'epoch' if hook.get('by_epoch', True) else 'iteration'
    return 'epoch'


def _knn_head(name: str) -> str:
    match = _TOP.match(name)
    if match:
        return f'{_FEATURES.get(match[1], match[1])}, top-1 ({_K}{match[2]})'
    plain = name.removeprefix('knn/')
    for feature, words in _FEATURES.items():
        plain = plain.replace(f'{feature}_', f'{words}, ', 1)
    plain = re.sub(r'top5_k(\d+)', rf'top-5 ({_K}\1)', plain)
    return plain.replace('rankme', 'RankMe')


def _cell(value: float | None) -> str:
    return '' if value is None else f'{value:.2f}'
