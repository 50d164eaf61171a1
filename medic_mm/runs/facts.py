"""What a run is, in words: method, student, teacher, data, how far it came."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medic_mm.helpers import duration, type_name
from medic_mm.models.vit.architecture import describe_backbone
from medic_mm.runs.run import Run

#: Settings that say which of its kind a teacher or a data set is.
_TELLING = ('model_name', 'model', 'arch', 'weights', 'block', 'layer')
_SOURCES = ('data_root', 'data_prefix', 'ann_file', 'split', 'length')
#: Longer settings are left to the config.
_MOST = 60


def describe_run(run: Run) -> dict[str, str]:
    """Fact to words, of those that the files tell."""
    model = run.config.get('model') or {}
    loader = run.config.get('train_dataloader') or {}
    facts = {
        'Method': method_of(run),
        'Student': _student(model.get('backbone')),
        'Teacher': _teacher(model.get('target_generator')),
        'Data': _data(loader.get('dataset')),
        'Batch': _batch(run),
        'Progress': _progress(run),
        'Time': _time(run),
        'Checkpoints': _checkpoints(run),
    }
    return {name: words for name, words in facts.items() if words}


def headline(run: Run) -> str:
    """The run in one sentence."""
    model = run.config.get('model') or {}
    backbone = model.get('backbone')
    teacher = model.get('target_generator')
    words = [method_of(run) or 'A run']
    if backbone:
        words.append(f'of a {_student(backbone).partition(",")[0]}')
    if teacher:
        words.append(f'from {type_name(_inner_teacher(teacher))}')
    state = 'finished' if run.finished else 'not finished'
    planned = f' of {run.planned:,}' if run.planned is not None else ''
    far = f'{run.done:,}{planned} {run.unit} in {duration(run.seconds)}'
    return f'{" ".join(words)}: {far}, {state}.'


def method_of(run: Run) -> str:
    """The algorithm's name."""
    return type_name(run.config.get('model') or {})


def _student(backbone: Mapping[str, Any] | None) -> str:
    if not backbone:
        return ''
    try:
        network = describe_backbone(backbone).arguments
    except (ValueError, KeyError, TypeError):
        return f'{type_name(backbone)} {_told(backbone, ("arch", "depth"))}'.strip()
    height, width = network['img_size']
    return (
        f'ViT of {network["depth"]} blocks, {network["embed_dim"]} wide, '
        f'{network["num_heads"]} heads, patches of {network["patch_size"]} px, '
        f'images of {width}\N{MULTIPLICATION SIGN}{height} px ({type_name(backbone)})'
    )


def _teacher(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return ''
    inner = _inner_teacher(settings)
    cached = ', its outputs from a cache' if inner is not settings else ''
    return f'{type_name(inner)} {_told(inner, _TELLING)}'.strip() + cached


def _inner_teacher(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = settings.get('teacher')
    return inner if isinstance(inner, Mapping) else settings


def _data(dataset: Mapping[str, Any] | None) -> str:
    if not isinstance(dataset, Mapping):
        return ''
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return f'{type_name(dataset)} {_told(dataset, _SOURCES)}'.strip()


def _told(settings: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Settings in brackets, of those that are given and short."""
    words = []
    for name in names:
        value = settings.get(name)
        if isinstance(value, str) and '/' in value and name == 'weights':
            value = Path(value).name
        if value in (None, '', {}) or len(str(value)) > _MOST:
            continue
        words.append(f'{name} {value}')
    return f'({", ".join(words)})' if words else ''


def _batch(run: Run) -> str:
    images = run.images_per_iteration
    if images is None:
        return ''
    wrapper = run.config.get('optim_wrapper') or {}
    steps = wrapper.get('accumulative_counts', 1)
    words = f'{images:,} images an iteration'
    if steps > 1:
        words += f', {steps} iterations a step'
    processes = run.environment.get('GPU number', '1')
    return words + (f', {processes} processes' if processes != '1' else '')


def _progress(run: Run) -> str:
    planned = f' of {run.planned:,}' if run.planned is not None else ''
    state = 'finished' if run.finished else 'stopped, or going on'
    return f'{run.done:,}{planned} {run.unit}, {state}'


def _time(run: Run) -> str:
    entries = [entry for log in run.logs for entry in log.entries]
    if not entries:
        return ''
    starts = len(run.logs)
    words = duration(run.seconds) + (f' in {starts} starts' if starts > 1 else '')
    words += f', {entries[0].time:%Y-%m-%d %H:%M} to {entries[-1].time:%Y-%m-%d %H:%M}'
    left = run.logs[-1].time_left
    return words if run.finished or not left else f'{words}; about {left} left then'


def _checkpoints(run: Run) -> str:
    if not run.checkpoints:
        return 'none yet' if not run.finished else 'none'
    names = [path.name for path in run.checkpoints[-4:]]
    more = len(run.checkpoints) - len(names)
    return ', '.join(names) + (f' and {more} earlier' if more else '')
