"""Data loaders: built for an evaluation, and checked."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import cast

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from medic_mm.datasets.class_lists import check_settings
from medic_mm.errors import UserError
from medic_mm.evaluation.features import check_order, count_classes, loader_settings
from medic_mm.helpers import type_name

_LOADERS = ('train_dataloader', 'test_dataloader')


def labelled_loaders(
    configs: Sequence[dict], seed: int | None = None
) -> tuple[list[DataLoader], int]:
    """The loaders of training and test images, and the number of classes.

    Args:
        configs: Settings of the train and the test loader, see
            :func:`medic_mm.evaluation.features.loader_settings` for what is filled in.
        seed: Of the samplers and workers.

    Raises:
        UserError: for data without labels, in another order, with classes that differ
            or that are numbered by position.
    """
    for config in configs:
        check_settings(config.get('dataset'))
    loaders = [
        Runner.build_dataloader(loader_settings(config), seed=seed)
        for config in configs
    ]
    for loader in loaders:
        check_order(loader)
    return loaders, count_classes(*(loader.dataset for loader in loaders))


def find_dataloaders(config: Config) -> list[dict]:
    """Settings of the train and the test loader for k-NN that a config holds.

    Those of the first ``KNNHook`` in ``custom_hooks``, or else the top-level
    ``knn_train_dataloader`` and ``knn_test_dataloader``.

    Raises:
        UserError: where there are none.
    """
    for hook in config.get('custom_hooks') or []:
        if isinstance(hook, dict) and type_name(hook) == 'KNNHook':
            return [hook[loader] for loader in _LOADERS]
    top_level = [f'knn_{loader}' for loader in _LOADERS]
    missing = [name for name in top_level if name not in config]
    if missing:
        raise UserError(
            'the config has no data for k-NN: add medic_mm.KNNHook to custom_hooks, or '
            f'set {" and ".join(missing)} at its top level'
        )
    return [config[name] for name in top_level]


def require_batches(loader: DataLoader, name: str = 'train_dataloader') -> None:
    """Refuse a loader whose images do not fill one batch.

    Args:
        loader: Of training, validation or test.
        name: Its key in the config.

    Raises:
        UserError: it names the images, the batch size and ``drop_last``.
    """
    total = len(cast(Sized, loader.dataset))
    if total == 0:
        raise UserError(f'{name} has no images')
    if isinstance(loader.sampler, InfiniteSampler) or len(loader) > 0:
        return
    share, processes = len(cast(Sized, loader.sampler)), get_world_size()
    each = f' ({share} for each of {processes} processes)' if processes > 1 else ''
    raise UserError(
        f'{name} has {total} images{each}, fewer than its batch_size='
        f'{loader.batch_size}, and drop_last=True leaves out what does not fill a '
        f'batch: set {name}.batch_size={share} or less, or {name}.drop_last=False'
    )
