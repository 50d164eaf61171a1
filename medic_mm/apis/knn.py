"""k-NN evaluation of a pre-trained backbone, from a config and a checkpoint."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from medic_mm.apis.cfg_options import OptionError
from medic_mm.checkpoints.backbone import load_backbone
from medic_mm.evaluation.features import (
    Features,
    TokenEncoder,
    count_classes,
    extract_features,
    loader_settings,
)
from medic_mm.evaluation.knn import check_settings
from medic_mm.evaluation.knn_metrics import knn_metrics
from medic_mm.registry import MODELS

#: In place of a checkpoint: the backbone as it is before training.
RANDOM = 'random'

_LOADERS = ('train_dataloader', 'test_dataloader')


class Student(BaseModule):
    """The backbone and the preprocessor of an algorithm's config, and nothing else.

    So no teacher, decoder or head is built or loaded. The ``init_cfg`` of the algorithm
    is kept, without pre-trained files: ``init_weights`` draws weights as training does.

    Args:
        model: The ``model`` of a config.

    Raises:
        ValueError: for a config without ``model.backbone``.
    """

    def __init__(self, model: dict) -> None:
        if 'backbone' not in model:
            raise ValueError('the config has no model.backbone: k-NN needs one')
        init = _drop_pretrained(dict(init_cfg=model.get('init_cfg')))
        super().__init__(init_cfg=init.get('init_cfg'))
        self.backbone = MODELS.build(_drop_pretrained(model['backbone']))
        preprocessor = copy.deepcopy(dict(model.get('data_preprocessor') or {}))
        preprocessor.setdefault('type', 'mmpretrain.SelfSupDataPreprocessor')
        self.data_preprocessor = MODELS.build(preprocessor)

    def extract_feat(self, inputs: Tensor) -> Any:
        """Run the backbone on whole images; one that masks is told not to."""
        return self.backbone(inputs, **_no_mask(self.backbone))


def evaluate_knn(
    config: Config,
    checkpoint: str,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    features: Sequence[str] = ('cls', 'mean'),
    device: str = 'auto',
) -> dict[str, Any]:
    """Evaluate a checkpoint's backbone by k-NN.

    Args:
        config: A config of pre-training. Its data for k-NN are those of ``KNNHook`` in
            ``custom_hooks``, or else the top-level ``knn_train_dataloader`` and
            ``knn_test_dataloader``.
        checkpoint: A file with the weights below ``backbone.``, loaded strictly, or
            ``'random'``: weights drawn with the config's ``randomness.seed`` (or 0).
        ks: Numbers of neighbours.
        temperature: Of the weights ``exp(similarity / temperature)``.
        features: ``'cls'``, ``'mean'``, or both.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

    Returns:
        A dictionary fit for JSON: what was evaluated, numbers of images and classes,
        seconds, and ``results``: for each feature and k the ``top1`` and (with more
        than five classes) ``top5`` accuracy in percent; ``rankme`` for each feature.

    Raises:
        OptionError: for no such checkpoint, or a config without data for k-NN.
        RuntimeError: for a checkpoint that does not fit; it names the weights.
        ValueError: for data without labels, a backbone without raw tokens, or settings
            out of range.
    """
    start = time.perf_counter()
    check_settings(ks, temperature)
    settings = find_dataloaders(config)
    if checkpoint != RANDOM and not Path(checkpoint).is_file():
        raise OptionError(f'checkpoint {checkpoint!r} does not exist')
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    where = torch.device(get_device() if device == 'auto' else device)
    seed = (config.get('randomness') or {}).get('seed') or 0
    student = _build_student(config, checkpoint, seed).to(where)
    encode = TokenEncoder(student, features)
    loaders = [
        Runner.build_dataloader(loader_settings(loader), seed=seed)
        for loader in settings
    ]
    num_classes = count_classes(*(loader.dataset for loader in loaders))
    train, test = (
        extract_features(encode, student.data_preprocessor, loader)
        for loader in loaders
    )
    metrics = knn_metrics(train, test, num_classes, ks, temperature, where)
    broken = [name for name, found in metrics.items() if math.isnan(found['rankme'])]
    if broken:
        raise ValueError(
            f'features {", ".join(broken)} of {checkpoint} have NaN or infinite '
            'values: the network diverged'
        )
    return {
        'config': config.filename,
        'checkpoint': checkpoint,
        'seed': seed if checkpoint == RANDOM else None,
        'device': str(where),
        'temperature': temperature,
        **_sizes(train, test, num_classes),
        'results': [
            {'features': name, 'k': k, **_accuracies(found, k)}
            for name, found in metrics.items()
            for k in ks
        ],
        'rankme': {name: found['rankme'] for name, found in metrics.items()},
        'seconds': round(time.perf_counter() - start, 2),
    }


def find_dataloaders(config: Config) -> list[dict]:
    """Settings of the train and the test loader for k-NN that a config holds.

    Those of the first ``KNNHook`` in ``custom_hooks``, or else the top-level
    ``knn_train_dataloader`` and ``knn_test_dataloader``.

    Raises:
        OptionError: where there are none.
    """
    for hook in config.get('custom_hooks') or []:
        kind = hook.get('type') if isinstance(hook, dict) else None
        name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        if name.split('.')[-1] == 'KNNHook':
            return [hook[loader] for loader in _LOADERS]
    top_level = [f'knn_{loader}' for loader in _LOADERS]
    missing = [name for name in top_level if name not in config]
    if missing:
        raise OptionError(
            'the config has no data for k-NN: add medic_mm.KNNHook to custom_hooks, or '
            f'set {" and ".join(missing)} at its top level'
        )
    return [config[name] for name in top_level]


def format_report(report: dict[str, Any]) -> str:
    """A report of :func:`evaluate_knn` as a table for the terminal."""
    lines = [
        f'k-NN of {report["checkpoint"]}: {report["train_images"]} train and '
        f'{report["test_images"]} test images, {report["num_classes"]} classes, '
        f'temperature {report["temperature"]}, {report["seconds"]} s',
        f'{"features":<10}{"k":>6}{"top1":>8}{"top5":>8}',
    ]
    for row in report['results']:
        top5 = f'{row["top5"]:8.2f}' if 'top5' in row else f'{"-":>8}'
        lines.append(f'{row["features"]:<10}{row["k"]:>6}{row["top1"]:8.2f}{top5}')
    return '\n'.join(lines)


def _build_student(config: Config, checkpoint: str, seed: int) -> Student:
    model = dict(config.get('model') or {})
    # the Runner lets a top-level data_preprocessor stand in for the model's own
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    set_random_seed(seed)
    student = Student(model)
    if checkpoint == RANDOM:
        with _warnings_only():
            student.init_weights()
    else:
        load_backbone(student.backbone, checkpoint)
    return student


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Leave out the host's lines on how each weight was drawn."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _sizes(train: Features, test: Features, num_classes: int) -> dict[str, int]:
    return {
        'train_images': len(train.labels),
        'test_images': len(test.labels),
        'num_classes': num_classes,
    }


def _accuracies(found: dict[str, float], k: int) -> dict[str, float]:
    suffix = f'_k{k}'
    return {
        name.removesuffix(suffix): value
        for name, value in found.items()
        if name.endswith(suffix)
    }


def _drop_pretrained(settings: dict) -> dict:
    """A copy whose ``init_cfg`` loads no file."""
    settings = copy.deepcopy(dict(settings))
    init = settings.get('init_cfg')
    steps = init if isinstance(init, (list, tuple)) else [init]
    kept = [step for step in steps if step and step.get('type') != 'Pretrained']
    if init is not None and len(kept) < len(steps):
        settings.pop('init_cfg')
        if kept:
            settings['init_cfg'] = kept
    return settings


def _no_mask(backbone: nn.Module) -> dict[str, None]:
    parameters = inspect.signature(backbone.forward).parameters
    return {'mask': None} if 'mask' in parameters else {}
