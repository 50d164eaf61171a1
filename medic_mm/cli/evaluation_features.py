"""A config for k-NN and linear probes of any student on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.cli.evaluation_student import PretrainedStudent
from medic_mm.cli.knn import find_dataloaders

# where the data for k-NN of each data set are written down
_BASES = {
    'cifar10': 'cifar10-64px_bs100_medic.py',
    'imagenet': 'imagenet_bs256_medic.py',
}
# the short side against the crop, as evaluation on ImageNet has it
_RESIZE = 256 / 224
_NUMBERS = ('mean', 'std', 'to_rgb')


def features_config(
    student: PretrainedStudent, dataset: str, folder: Path, root: Path
) -> Config:
    """The student with the data for k-NN, for tools/knn.py and tools/linear_probe.py.

    Args:
        student: What is evaluated; images are resized to its size.
        dataset: ``'cifar10'`` or ``'imagenet'``.
        folder: Where the data lie.
        root: Folder that holds ``configs``.
    """
    base = root / 'configs' / '_base_' / 'datasets' / _BASES[dataset]
    train, test = find_dataloaders(Config.fromfile(base))
    for loader in (train, test):
        loader['dataset']['data_root'] = str(folder)
        for transform in loader['dataset']['pipeline']:
            _resize(transform, student.image_size)
    return Config(
        dict(
            default_scope='mmpretrain',
            **_model(student),
            randomness=dict(seed=_seed(student.settings)),
            knn_train_dataloader=dict(train),
            knn_test_dataloader=dict(test),
        )
    )


def _model(student: PretrainedStudent) -> dict[str, Any]:
    """What tools/knn.py builds of a student."""
    settings, model = student.settings, student.settings['model']
    preprocessor = (
        model.get('data_preprocessor') or settings.get('data_preprocessor') or {}
    )
    if not student.trusted:
        # a host builds any function that a type names, so a downloaded checkpoint
        # gives plain numbers and a backbone that is known
        numbers = {x: preprocessor[x] for x in _NUMBERS if x in preprocessor}
        preprocessor = dict(type='medic_mm.HostSamplesPreprocessor', **numbers)
        backbone = {k: v for k, v in student.backbone.items() if k != 'init_cfg'}
        return dict(model=dict(backbone=backbone, data_preprocessor=preprocessor))
    kept = {k: model[k] for k in ('backbone', 'init_cfg') if model.get(k) is not None}
    found: dict[str, Any] = dict(model=dict(kept, data_preprocessor=preprocessor))
    if settings.get('custom_imports'):
        found['custom_imports'] = settings['custom_imports']
    return found


def _seed(settings: dict[str, Any]) -> int:
    return (settings.get('randomness') or {}).get('seed') or 0


def _resize(transform: dict[str, Any], size: int) -> None:
    kind = transform['type']
    if kind == 'Resize':
        transform['scale'] = size
    elif kind == 'ResizeEdge':
        transform['scale'] = round(size * _RESIZE)
    elif kind == 'CenterCrop':
        transform['crop_size'] = size
