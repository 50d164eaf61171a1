"""Image files of the user, prepared as a config prepares images for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from torch import Tensor

from medic_mm.datasets.decoding import read_image
from medic_mm.datasets.image_files import SUFFIXES, find_image_files, name_left_out
from medic_mm.errors import MissingFileError, UserError
from medic_mm.evaluation.loaders import find_dataloaders
from medic_mm.helpers import type_name

_LOADERS = ('LoadImageFromFile', 'LoadReadableImage')


def find_images(paths: Sequence[str | Path], limit: int) -> list[Path]:
    """The first ``limit`` images among files and in folders, in order of their names.

    Args:
        paths: Files, and folders that are searched with their sub-folders.
        limit: At most so many.

    Raises:
        UserError: for a path that does not exist, a folder without images, or a
            ``limit`` below 1.
    """
    if limit < 1:
        raise UserError(f'--limit {limit}: use 1 or more')
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise MissingFileError(f'image {str(path)!r} does not exist')
        inside = find_image_files(path)
        if inside.left_out:
            MMLogger.get_current_instance().warning(
                name_left_out(inside.left_out, path)
            )
        if not inside.files:
            raise UserError(
                f'the folder {str(path)!r} holds no images ({", ".join(SUFFIXES)})'
            )
        found += [path / name for name in inside.files]
    return found[:limit]


def load_images(config: Config, paths: Sequence[Path], size: Sequence[int]) -> Tensor:
    """Read images through the pipeline of the config's k-NN test data.

    Where the config has none, or its images are of another size than the backbone's,
    they are resized by the shorter side and cropped in the centre.

    Args:
        config: A config of pre-training; its default scope must be set up.
        paths: Image files.
        size: ``(height, width)`` of the backbone's images.

    Returns:
        uint8 BGR ``(B, 3, H, W)``, as the data preprocessor takes them.

    Raises:
        UserError: for a file that is no readable image, or a pipeline that does not
            give one image.
    """
    pipeline = Compose(_image_pipeline(config))
    height, width = size
    fit = Compose(
        [
            dict(
                type='mmpretrain.ResizeEdge',
                scale=max(height, width),
                edge='short',
                interpolation='bicubic',
                backend='pillow',
            ),
            dict(type='mmpretrain.CenterCrop', crop_size=(height, width)),
        ]
    )
    images = []
    for path in paths:
        read_image(path)  # names a broken file, whatever loads it in the pipeline
        results = pipeline(dict(img_path=str(path), sample_idx=0))
        image = None if results is None else results.get('img')
        if image is None or image.ndim != 3:
            raise UserError(
                f'the pipeline of the k-NN test data gives no single image for {path}: '
                'it must load, resize and pack one'
            )
        if image.shape[:2] != (height, width):
            image = fit(results)['img']
        images.append(torch.from_numpy(image.copy()).permute(2, 0, 1))
    return torch.stack(images)


def _image_pipeline(config: Config) -> list[dict]:
    """The steps of the evaluation pipeline between loading and packing."""
    try:
        dataset = find_dataloaders(config)[1].get('dataset', {})
    except UserError:
        dataset = {}
    steps = [dict(step) for step in dataset.get('pipeline') or []]
    kept = [step for step in steps if type_name(step) != 'PackInputs']
    if not any(type_name(step) in _LOADERS for step in kept):
        kept.insert(0, dict(type='medic_mm.LoadReadableImage'))
    return kept
