"""Which curves of a run stand in which chart of its page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from medic_mm.runs.charts import Chart, Curve
from medic_mm.runs.run import Run

_TOP = re.compile(r'^knn/(\w+)_top1_k(\d+)$')
_RANK = re.compile(r'^knn/(\w+)_rankme$')
#: Does not break at the end of a line.
_K = 'k\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}'
FEATURES = {'cls': 'class token', 'mean': 'mean patch'}
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


def charts_of(run: Run) -> Iterator[Chart]:
    """All charts of a run: losses, k-NN, learning rate, speed, health, the rest."""
    curves = run.curves
    raw = {n.removeprefix('raw_'): c for n, c in curves.items() if n.startswith('raw_')}
    weighted = {n: c for n, c in curves.items() if re.match(r'^loss(_|$)', n)}
    if raw:
        yield Chart('Loss terms, unweighted', raw)
    if weighted:
        # the total last, so that a term has the same colour in both charts
        weighted.update({n: weighted.pop(n) for n in ('loss',) if n in weighted})
        yield Chart('Loss, as trained on', weighted)
    yield from _knn_charts(run)
    rates = {name: curves[name] for name in ('lr', 'base_lr') if name in curves}
    if len(rates) == 2 and rates['lr'] == rates['base_lr']:
        del rates['base_lr']
    if rates:
        yield Chart('Learning rate', rates, from_zero=True)
    yield from _speed(run)
    yield from _health(curves)
    for name, curve in curves.items():
        if not name.startswith(_PLACED):
            yield Chart(name, {name: curve}, 'step', marked=len(curve) < 50)


def knn_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: each evaluation by k-NN; no rows where there was none."""
    names = [name for name in run.curves if name.startswith('knn/')]
    columns = [dict(run.curves[name]) for name in names]
    steps = sorted({step for column in columns for step in column})
    rows = [
        ['0 (start)' if step == 0 else f'{step:g}']
        + [f'{column[step]:.2f}' if step in column else '' for column in columns]
        for step in steps
    ]
    return [_knn_step(run), *map(_knn_head, names)], rows


def _knn_charts(run: Run) -> Iterator[Chart]:
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
    feature = FEATURES.get(match[1], match[1])
    return feature if match.re is _RANK else f'{feature}, k = {match[2]}'


def _speed(run: Run) -> Iterator[Chart]:
    if 'time' not in run.curves:
        return
    images = run.images_per_iteration
    if images is not None:
        rate = [(step, images / time) for step, time in run.curves['time'] if time]
        yield Chart('Throughput, images per second', {'images': rate}, from_zero=True)
    names = {'time': 'iteration', 'data_time': 'waiting for data'}
    parts = {label: run.curves[n] for n, label in names.items() if n in run.curves}
    yield Chart('Seconds per iteration', parts, from_zero=True)


def _health(curves: dict[str, Curve]) -> Iterator[Chart]:
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
        return f'{FEATURES.get(match[1], match[1])}, top-1 ({_K}{match[2]})'
    plain = name.removeprefix('knn/')
    for feature, words in FEATURES.items():
        plain = plain.replace(f'{feature}_', f'{words}, ', 1)
    plain = re.sub(r'top5_k(\d+)', rf'top-5 ({_K}\1)', plain)
    return plain.replace('rankme', 'RankMe')
