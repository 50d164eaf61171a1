"""Labelled images of an evaluation: one way to build and check them for all."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from medic_mm.datasets.folder_positions import check_settings
from medic_mm.evaluation.features import check_order, count_classes, loader_settings


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
