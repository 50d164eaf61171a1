"""Image, ground truth and prediction: ``visualize.py segmentation``."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import set_random_seed
from torch import nn

from medic_mm.datasets.decoding import read_image
from medic_mm.datasets.image_files import find_image_files
from medic_mm.errors import UserError
from medic_mm.helpers import choose_device
from medic_mm.pictures.commands.whole_model import load_whole
from medic_mm.pictures.common import (
    Drawn,
    enter_scope,
    require_folder,
    save_figure,
)
from medic_mm.pictures.segmentation import Classes, Segmentation
from medic_mm.pictures.segmentation_figures import draw_segmentations
from medic_mm.registry import DATASETS, MODELS
from medic_mm.sampling import in_turns
from medic_mm.settings.images import find_images
from medic_mm.settings.student import RANDOM, require_checkpoint, seed_of

#: More rows would make a picture too tall to look at.
_PER_PICTURE = 4


def visualize_segmentation(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    annotations: str | Path | None = None,
    limit: int = 4,
    device: str = 'auto',
) -> Drawn:
    """Draw images, their true classes and the predicted ones.

    Args:
        config: A config of mmsegmentation.
        checkpoint: A file with all weights of the model, or ``'random'``: weights drawn
            with the config's ``randomness.seed`` (or 0).
        images: Image files, or folders of them. Empty: images at even distances in the
            test data set of the config (else its validation data set), with their
            ground truth.
        out: Folder to write to: ``segmentation.png``, and one more for every four
            images.
        annotations: Folder of the ground truth of ``images``: files of the same names,
            with the suffix that the config gives them.
        limit: Take at most so many images.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

    Raises:
        UserError: for images, annotations or weights that cannot be used, a config
            that is none of segmentation, and where mmsegmentation is not installed.
    """
    if limit < 1:
        raise UserError(f'--limit {limit}: use 1 or more')
    if annotations is not None and not images:
        raise UserError(
            f'--annotations {annotations} needs IMAGES: without them, images and '
            "ground truth are those of the config's data set"
        )
    folder = require_folder(out)
    require_checkpoint(checkpoint)
    settings = _test_data(config)
    _require_mmseg()
    enter_scope(config)
    samples, classes = _choose_samples(settings, images, annotations, limit)
    model = open_segmentor(config, checkpoint, choose_device(device))
    _require_classes(model, classes)
    pipeline = settings['pipeline']
    found = [_segment(model, pipeline, sample) for sample in samples]
    name = 'random weights' if checkpoint == RANDOM else Path(checkpoint).name
    return Drawn(_write(found, classes, f'Segmentation, {name}', folder), [])


def open_segmentor(config: Config, checkpoint: str, device: torch.device) -> nn.Module:
    """The segmentor of a config with all its weights, in eval mode.

    Raises:
        UserError: for a checkpoint that does not fit.
    """
    settings = copy.deepcopy(dict(config.model))
    settings['backbone']['init_cfg'] = None  # a file of pre-training is not needed
    set_random_seed(seed_of(config))
    model = MODELS.build(settings)
    if checkpoint == RANDOM:
        model.init_weights()
    else:
        load_whole(model, checkpoint)
    return revert_sync_batchnorm(model).to(device).eval()


def _write(
    found: Sequence[Segmentation], classes: Classes, heading: str, folder: Path
) -> list[Path]:
    files = []
    for first in range(0, len(found), _PER_PICTURE):
        figure = Figure()
        page = found[first : first + _PER_PICTURE]
        try:
            draw_segmentations(figure, page, classes, heading)
        except ValueError as error:
            raise UserError(str(error)) from error
        suffix = f'_{first // _PER_PICTURE + 1}' if first else ''
        files.append(save_figure(figure, folder / f'segmentation{suffix}.png'))
    return files


def _require_mmseg() -> None:
    try:
        importlib.import_module('mmseg.models')
    except ImportError as error:
        raise UserError(
            f"segmentation needs mmsegmentation: pip install 'medic_mm[seg]' ({error})"
        ) from error


def _test_data(config: Config) -> dict[str, Any]:
    """Settings of the test data set, or else of the validation data set."""
    model = config.get('model') or {}
    if config.get('default_scope') != 'mmseg' or 'decode_head' not in model:
        raise UserError(
            "the config is none of segmentation (default_scope='mmseg', a model with "
            'decode_head): give one of configs/benchmarks/segmentation'
        )
    for name in ('test_dataloader', 'val_dataloader'):
        settings = (config.get(name) or {}).get('dataset')
        if settings is not None and 'pipeline' in settings:
            return copy.deepcopy(dict(settings))
    raise UserError(
        'the config has no test_dataloader or val_dataloader with a data set, which '
        'says how images are read and which classes there are'
    )


def _choose_samples(
    settings: dict[str, Any],
    images: Sequence[str | Path],
    annotations: str | Path | None,
    limit: int,
) -> tuple[list[dict], Classes]:
    """What the pipeline takes for each image, and the classes of the data set."""
    given = bool(images)
    try:
        # with files of the user, the data set need not be there
        dataset = DATASETS.build(dict(settings, pipeline=[], lazy_init=given))
    except OSError as error:
        raise UserError(
            f"the config's test images cannot be read: {error} (IMAGES names others)"
        ) from error
    meta = dataset.metainfo
    if not meta.get('classes'):
        raise UserError(
            "the config's test data set names no classes: set metainfo.classes"
        )
    classes = Classes(meta['classes'], meta['palette'], dataset.ignore_index)
    if not given:
        if not len(dataset):
            raise UserError("the config's test data set has no images")
        chosen = sorted(in_turns([None] * len(dataset), limit))
        return [dataset.get_data_info(i) for i in chosen], classes
    samples = []
    for path in find_images(images, limit):
        sample = dict(
            img_path=str(path),
            label_map=dataset.label_map,
            reduce_zero_label=dataset.reduce_zero_label,
            seg_fields=[],
        )
        if annotations is not None:
            sample['seg_map_path'] = str(_annotation(dataset, path, Path(annotations)))
        samples.append(sample)
    return samples, classes


def _annotation(dataset: BaseDataset, image: Path, folder: Path) -> Path:
    """The file with the ground truth of an image, in a folder or below it."""
    name = image.name.removesuffix(dataset.img_suffix)
    name = (image.stem if name == image.name else name) + dataset.seg_map_suffix
    if (folder / name).is_file():
        return folder / name
    inside = find_image_files(folder).files if folder.is_dir() else []
    below = [folder / path for path in inside if Path(path).name == name]
    if len(below) == 1:
        return below[0]
    raise UserError(
        f'--annotations {folder} has {"several files" if below else "no file"} {name} '
        f'for the image {image}'
    )


def _require_classes(model: nn.Module, classes: Classes) -> None:
    head = model.decode_head
    # a cascade of heads predicts by its last one
    count = (head[-1] if isinstance(head, nn.ModuleList) else head).num_classes
    if count != len(classes.names):
        raise UserError(
            f'model.decode_head has num_classes={count} but the test data set '
            f'{len(classes.names)} classes: they must be equal'
        )


@torch.no_grad()
def _segment(model: nn.Module, pipeline: Sequence[dict], sample: dict) -> Segmentation:
    """One image through the test pipeline and the model, at its own size."""
    path = sample['img_path']
    image = read_image(path)
    known = 'seg_map_path' in sample
    if known and not Path(sample['seg_map_path']).is_file():
        raise UserError(f'the ground truth {sample["seg_map_path"]!r} does not exist')
    steps = [step for step in pipeline if known or step['type'] != 'LoadAnnotations']
    packed = Compose(steps)(dict(sample))
    data = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    result = model.test_step(data)[0]
    prediction = result.pred_sem_seg.data[0].cpu().numpy()
    truth = None
    if known:
        truth = packed['data_samples'].gt_sem_seg.data[0].cpu().numpy()
        if truth.shape != prediction.shape:
            raise UserError(
                f'the ground truth of {path} has {truth.shape} pixels, the prediction '
                f'{prediction.shape}: load annotations after resizing in the test '
                'pipeline'
            )
    image = cv2.resize(image, prediction.shape[::-1])
    return Segmentation(image, prediction, truth, Path(path).stem)
