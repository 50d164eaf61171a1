"""The images of a picture: files of the user, or some of the config's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from medic_mm.datasets.folder_positions import check_settings
from medic_mm.errors import UserError
from medic_mm.evaluation.loaders import find_dataloaders
from medic_mm.registry import DATASETS
from medic_mm.sampling import in_turns
from medic_mm.settings.images import find_images, load_images

_LONGEST_NAME = 15


def choose_images(
    config: Config, images: Sequence[str | Path], size: Sequence[int], limit: int
) -> tuple[Tensor, list[str]]:
    """Images and their names: of the files given, else of the k-NN test data.

    Args:
        config: A config of pre-training; its scope must be entered.
        images: Files and folders; empty for images drawn from the config's data, one
            of each class in turn, the same in each call.
        size: ``(height, width)`` of the backbone's images.
        limit: At most so many; of files and folders the first ones by name.

    Returns:
        uint8 BGR ``(B, 3, H, W)``, and a short name for each: of the file or the class.

    Raises:
        UserError: for images that cannot be found or read, and where none are given
            and the config has no data for k-NN.
    """
    if limit < 1:
        raise UserError(f'--limit {limit}: use 1 or more')
    if images:
        paths = find_images(images, limit)
        return load_images(config, paths, size), [shorten(path.stem) for path in paths]
    try:
        settings = find_dataloaders(config)[1]['dataset']
    except UserError as error:
        raise UserError(f'no IMAGES are given, and {error}') from error
    check_settings(settings)
    try:
        dataset = DATASETS.build(copy.deepcopy(settings))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the config's images cannot be read: {error} (IMAGES names others)"
        ) from error
    labels = [dataset.get_data_info(i).get('gt_label') for i in range(len(dataset))]
    chosen = in_turns(labels, limit)
    inputs = [dataset[index]['inputs'] for index in chosen]
    wrong = {tuple(image.shape[1:]) for image in inputs} - {tuple(size)}
    if wrong:
        raise UserError(
            f"the config's k-NN test images are of {wrong.pop()} pixels but the "
            f'backbone takes {tuple(size)}: give IMAGES, which are resized'
        )
    return torch.stack(inputs), [_class_name(dataset, labels[i]) for i in chosen]


def shorten(name: str) -> str:
    """A name that fits above a small picture: the end of a long one."""
    return name if len(name) <= _LONGEST_NAME else f'…{name[1 - _LONGEST_NAME :]}'


def _class_name(dataset: object, label: int | None) -> str:
    classes = dataset.metainfo.get('classes')
    if label is None:
        return ''
    return shorten(str(classes[label] if classes else label))
