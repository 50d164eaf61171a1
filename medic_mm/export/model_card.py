"""The model card of an exported backbone, filled from its run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medic_mm.export.preprocessing import Preprocessing
from medic_mm.export.source import Source
from medic_mm.helpers import type_name
from medic_mm.models.vit.architecture import Architecture
from medic_mm.runs.results import Accuracy, read_accuracies
from medic_mm.version import __version__

_METHODS = {
    'MEDiC': 'MEDiC, masked distillation from a frozen encoder (arXiv 2603.29009)',
    'MIMHD': 'MIM-HD, distillation of the relations of a frozen MAE, head by head',
    'TinyMIM': 'TinyMIM, distillation of the relations of an MAE (arXiv 2301.01296)',
    'MAE': 'MAE, masked autoencoding (arXiv 2111.06377)',
}
_FEATURES = {'cls': 'class token', 'mean': 'mean patch token'}
_FRONT_MATTER = """---
library_name: timm
pipeline_tag: image-feature-extraction
license: {}
tags:
- timm
- medic_mm
- masked-distillation
- self-supervised
---
"""
_NO_LICENCE = """## Licence

Not stated. The terms of the teacher and of the data bind the weights too.
"""
_TEACHER_SETTINGS = ('model', 'arch', 'block', 'input_size', 'norm', 'input_norm')


def write_model_card(
    source: Source,
    architecture: Architecture,
    preprocessing: Preprocessing,
    licence: str,
    repository: str | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """The text of ``README.md`` for a Hugging Face folder.

    Of files and folders only the names are given, never where they lie. What the config
    does not say is left out.

    Args:
        source: The checkpoint and its config.
        architecture: Of the exported network.
        preprocessing: Of its images.
        licence: Identifier of the Hub, such as ``'apache-2.0'``; ``'unknown'``.
        repository: Id on the Hub, for the example; None: a folder.
        remarks: Sentences about this export.
    """
    name = repository or source.path.resolve().parent.name
    notes = ''.join(f'- {note}\n' for note in (*preprocessing.notes, *remarks))
    parts = [
        _FRONT_MATTER.format(licence),
        f'# {name}\n\n{_summary(source, architecture.arguments)}\n',
        _usage(repository),
        _table('Network', _network_rows(architecture.arguments, preprocessing.data)),
        _table('Pre-training', _training_rows(source)),
        _accuracy_table(read_accuracies(source.path, _step(source))),
        f'## Notes\n\n{notes}' if notes else '',
        _NO_LICENCE if licence == 'unknown' else '',
        f'Written by `tools/export_hf.py` of medic_mm {__version__}.\n',
    ]
    return '\n'.join(part for part in parts if part)


def _summary(source: Source, size: Mapping[str, Any]) -> str:
    kind = _method(source)
    method = _METHODS.get(kind, f'`{kind}`')
    return (
        f'A Vision Transformer ({size["depth"]} blocks, {size["embed_dim"]} wide, '
        f'{_by(size["img_size"])} px in patches of {size["patch_size"]}) pre-trained '
        f'by {method}. It has no classifier: it gives features, or is fine-tuned.'
    )


def _usage(repository: str | None) -> str:
    source = f'hf-hub:{repository}' if repository else 'local-dir:FOLDER'
    ours = repository or 'FOLDER'
    return f"""## Use

```python
import timm, torch
from PIL import Image

model = timm.create_model('{source}', pretrained=True).eval()
data = timm.data.resolve_model_data_config(model)
transforms = timm.data.create_transform(**data, is_training=False)
image = transforms(Image.open('image.jpg').convert('RGB'))[None]
with torch.no_grad():
    features = model(image)                 # (1, D)
    tokens = model.forward_features(image)  # (1, 1 + L, D), class token first
```

or `model = medic_mm.load_model('{ours}')`, whose `model.transforms` also reads
images of 16 bits, and turned photographs, as training does.
"""


def _network_rows(size: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    scale = size['init_values']
    return {
        'heads': size['num_heads'],
        'MLP width': int(size['embed_dim'] * size['mlp_ratio']),
        'LayerScale': 'none' if scale is None else f'started at {scale}',
        'images': f'RGB, {_by(data["input_size"][1:])} px, {data["interpolation"]}, '
        f'crop mode {data["crop_mode"]}, crop share {data["crop_pct"]:.4g}',
        'mean': ', '.join(f'{value:.6g}' for value in data['mean']),
        'standard deviation': ', '.join(f'{value:.6g}' for value in data['std']),
    }


def _training_rows(source: Source) -> dict[str, Any]:
    config, model = source.config, source.model
    head = model.get('head') or {}
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    loader = config.get('train_dataloader') or {}
    dataset = _inner_dataset(loader.get('dataset'))
    steps = [x for x in dataset.get('pipeline') or [] if isinstance(x, Mapping)]
    weights = head.get('weights') or {}
    return {
        'method': _method(source),
        'teacher': _teacher(model.get('target_generator')),
        'loss terms and weights': ', '.join(f'{k} {v:g}' for k, v in weights.items()),
        'loss components': ', '.join(
            f'{key.removesuffix("_loss")}: {_component(value)}'
            for key, value in head.items()
            if key.endswith('_loss') and isinstance(value, Mapping)
        ),
        'matching of heads': _component(head.get('matching') or {}),
        'data': _data(dataset),
        'training pipeline': ', '.join(map(_component, steps)),
        'length': _length(source),
        'batch size per process': loader.get('batch_size'),
        'optimizer': _component(optimizer) if optimizer else '',
        'seed': source.meta.get('seed'),
        'software': f'medic_mm, mmengine {_release(source.meta)}',
    }


def _method(source: Source) -> str:
    head = source.model.get('head') or {}
    # TinyMIM is MIM-HD's algorithm with the plainest matching and no pixel term
    plain = type_name(head.get('matching') or {}) == 'OneToOneMatching'
    pixel = (head.get('weights') or {}).get('pixel')
    name = type_name(source.model)
    return 'TinyMIM' if name == 'MIMHD' and plain and not pixel else name


def _teacher(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return ''
    if isinstance(settings.get('teacher'), Mapping):  # a cache around it
        return _teacher(settings['teacher'])
    kept = {key: settings[key] for key in _TEACHER_SETTINGS if key in settings}
    if isinstance(settings.get('weights'), str):
        kept['weights'] = Path(settings['weights']).name
    return _component({'type': settings.get('type'), **kept})


def _data(dataset: Mapping[str, Any]) -> str:
    if not dataset:
        return ''
    shown = {key: dataset[key] for key in ('split', 'length') if key in dataset}
    for key in ('data_root', 'data_prefix', 'ann_file'):
        if isinstance(dataset.get(key), str) and dataset[key]:
            shown[key] = Path(dataset[key]).name
    return _component({'type': dataset.get('type'), **shown})


def _inner_dataset(dataset: Any) -> Mapping[str, Any]:
    """The data set inside of wrappers; empty where there is none."""
    while isinstance(dataset, Mapping) and isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return dataset if isinstance(dataset, Mapping) else {}


def _length(source: Source) -> str:
    epoch, iteration = source.meta.get('epoch'), source.meta.get('iter')
    total = (source.config.get('train_cfg') or {}).get('max_epochs')
    of_total = f' of {total}' if total else ''
    return '' if epoch is None else f'{epoch} epochs{of_total}, {iteration} iterations'


def _step(source: Source) -> int | None:
    """The checkpoint's epoch, or its iteration where k-NN counts these."""
    for hook in source.config.get('custom_hooks') or []:
        if type_name(hook) == 'KNNHook' and not hook.get('by_epoch', True):
            return source.meta.get('iter')
    return source.meta.get('epoch')


def _accuracy_table(accuracies: Sequence[Accuracy]) -> str:
    if not accuracies:
        return '## Measured\n\nNo numbers were found next to the checkpoint.\n'
    lines = [
        '## Measured',
        '',
        'k-NN accuracy in % on the evaluation data of the run; no fine-tuning.',
        '',
        '| features | k | before training | this checkpoint |',
        '|---|---:|---:|---:|',
    ]
    for row in accuracies:
        before = '-' if row.before is None else f'{row.before:.1f}'
        features = _FEATURES.get(row.features, row.features)
        lines.append(f'| {features} | {row.k} | {before} | {row.top1:.1f} |')
    return '\n'.join(lines) + '\n'


def _table(title: str, rows: Mapping[str, Any]) -> str:
    shown = [(key, value) for key, value in rows.items() if value not in (None, '')]
    if not shown:
        return ''
    lines = [f'## {title}', '', '| | |', '|---|---|']
    for key, value in shown:
        cell = str(value).replace('|', '\\|').replace('\n', ' ')
        lines.append(f'| {key} | {cell} |')
    return '\n'.join(lines) + '\n'


def _component(settings: Mapping[str, Any]) -> str:
    """A component in one line: its name and its plain settings."""
    plain = {
        key: value
        for key, value in settings.items()
        if key != 'type' and _is_plain(value)
    }
    inside = ', '.join(f'{key}={json.dumps(value)}' for key, value in plain.items())
    return type_name(settings) + (f' ({inside})' if inside else '')


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 3 and all(map(_is_plain, value))
    if isinstance(value, str):
        return '/' not in value and '\\' not in value  # no path of the machine
    return isinstance(value, (bool, int, float))


def _by(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))


def _release(meta: Mapping[str, Any]) -> str:
    """The version without the commit that mmengine glues to it."""
    version = str(meta.get('mmengine_version', ''))
    return version[:-40] if len(version) > 45 else version
