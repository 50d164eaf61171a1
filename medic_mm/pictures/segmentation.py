"""Image, ground truth and predicted classes: ``tools/visualize.py segmentation``."""

from __future__ import annotations

import copy
import importlib
import math
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import set_random_seed
from torch import nn

from medic_mm.datasets.decoding import read_image
from medic_mm.datasets.image_files import find_image_files
from medic_mm.errors import UserError
from medic_mm.helpers import choose_device
from medic_mm.pictures import Drawn, add_images, add_model, add_output, register_picture
from medic_mm.pictures.common import (
    enter_scope,
    file_of_page,
    load_whole,
    require_folder,
    save_figure,
)
from medic_mm.registry import DATASETS, MODELS
from medic_mm.sampling import in_turns
from medic_mm.settings.images import find_images
from medic_mm.settings.student import RANDOM, require_checkpoint, seed_of

_PER_PICTURE = 4  # more rows would make a picture too tall to look at
IGNORED_COLOUR = (255, 255, 255)  # of what stands for no class; it is hatched
_CELL, _TITLE, _HEAD, _LINE, _ENTRY = 3.6, 0.3, 0.45, 0.24, 1.75  # inches
_LEGEND_COLUMNS = 6
_HATCH, _HATCH_COLOUR = '////', '#777777'


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_segmentation`."""
    add_model(parser)
    words = "image files, or folders of them; default drawn from the config's test data"
    add_images(parser, help=words, nargs='*')
    parser.add_argument(
        '--annotations', type=Path, help='folder of the ground truth of IMAGES'
    )
    add_output(parser)


@register_picture(
    'segmentation', 'image, ground truth and predicted classes', add_arguments
)
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

    Writes ``segmentation.png``, and one more for every four images, to ``out``. The
    config is one of mmsegmentation, the checkpoint has all weights. Without images they
    are drawn, the same in each call, from the config's test data (else its validation
    data), with their ground truth. Files of ``annotations`` have the names of the
    images, with the suffix that the config gives them.

    Raises:
        UserError: for anything that cannot be used, and without mmsegmentation.
    """
    if limit < 1:
        raise UserError(f'--limit {limit}: use 1 or more')
    if annotations is not None and not images:
        raise UserError(
            f'--annotations {annotations} needs IMAGES: else images and ground truth '
            "are those of the config's data set"
        )
    folder = require_folder(out)
    require_checkpoint(checkpoint)
    settings = _test_data(config)
    try:
        importlib.import_module('mmseg.models')
    except ImportError as error:
        raise UserError(
            f"segmentation needs mmsegmentation: pip install 'medic_mm[seg]' ({error})"
        ) from error
    enter_scope(config)
    samples, classes = _choose_samples(settings, images, annotations, limit)
    model = _open_segmentor(config, checkpoint, choose_device(device), classes)
    found = [_segment(model, settings['pipeline'], sample) for sample in samples]
    name = 'random weights' if checkpoint == RANDOM else Path(checkpoint).name
    files = []
    for page, first in enumerate(range(0, len(found), _PER_PICTURE)):
        figure, shown = Figure(), found[first : first + _PER_PICTURE]
        draw_segmentations(figure, shown, classes, f'Segmentation, {name}')
        files.append(save_figure(figure, file_of_page(folder, 'segmentation', page)))
    return Drawn(files, [])


def _open_segmentor(
    config: Config, checkpoint: str, device: torch.device, classes: Classes
) -> nn.Module:
    """The segmentor of a config with all its weights, in eval mode."""
    settings = copy.deepcopy(dict(config.model))
    settings['backbone']['init_cfg'] = None  # a file of pre-training is not needed
    set_random_seed(seed_of(config))
    model = MODELS.build(settings)
    load_whole(model, checkpoint)
    head = model.decode_head
    # a cascade of heads predicts by its last one
    count = (head[-1] if isinstance(head, nn.ModuleList) else head).num_classes
    if count != len(classes.names):
        raise UserError(
            f'model.decode_head has num_classes={count} but the test data set '
            f'{len(classes.names)} classes: they must be equal'
        )
    return revert_sync_batchnorm(model).to(device).eval()


def _test_data(config: Config) -> dict[str, Any]:
    """Settings of the test data set, or else of the validation data set."""
    model = config.get('model') or {}
    if config.get('default_scope') != 'mmseg' or 'decode_head' not in model:
        raise UserError(
            "the config is not one of segmentation (default_scope='mmseg' and a model "
            'with decode_head): give one of configs/benchmarks/segmentation'
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
    meta, kind = dataset.metainfo, "the config's test data set"
    if not meta.get('classes'):
        raise UserError(f'{kind} names no classes: set metainfo.classes')
    classes = Classes(meta['classes'], meta['palette'], dataset.ignore_index)
    if not given:
        if not len(dataset):
            raise UserError(f'{kind} has no images')
        # from all of it: neighbours are often frames of one video
        chosen = sorted(in_turns([None] * len(dataset), limit))
        return [dataset.get_data_info(i) for i in chosen], classes
    names = ('label_map', 'reduce_zero_label')
    shared = {name: getattr(dataset, name) for name in names}
    paths = find_images(images, limit)
    samples = [dict(img_path=str(path), seg_fields=[], **shared) for path in paths]
    if annotations is not None:
        for sample, path in zip(samples, paths, strict=True):
            sample['seg_map_path'] = _annotation(dataset, path, Path(annotations))
    return samples, classes


def _annotation(dataset: BaseDataset, image: Path, folder: Path) -> str:
    """The file with the ground truth of an image, in a folder or below it."""
    name = image.name.removesuffix(dataset.img_suffix)
    name = (image.stem if name == image.name else name) + dataset.seg_map_suffix
    if (folder / name).is_file():
        return str(folder / name)
    inside = find_image_files(folder).files if folder.is_dir() else []
    below = [str(folder / path) for path in inside if Path(path).name == name]
    if len(below) == 1:
        return below[0]
    raise UserError(
        f'--annotations {folder} has {"several files" if below else "no file"} {name} '
        f'for the image {image}'
    )


@torch.no_grad()
def _segment(model: nn.Module, pipeline: Sequence[dict], sample: dict) -> Segmentation:
    """One image through the test pipeline and the model, at its own size."""
    path, truth_file = sample['img_path'], sample.get('seg_map_path')
    image, truth = read_image(path), None
    if truth_file is not None and not Path(truth_file).is_file():
        raise UserError(f'the ground truth {truth_file!r} does not exist')
    steps = [s for s in pipeline if truth_file or s['type'] != 'LoadAnnotations']
    packed = Compose(steps)(dict(sample))
    data = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    prediction = model.test_step(data)[0].pred_sem_seg.data[0].cpu().numpy()
    if truth_file is not None:
        truth = packed['data_samples'].gt_sem_seg.data[0].cpu().numpy()
        if truth.shape != prediction.shape:
            raise UserError(
                f'the ground truth of {path} has {truth.shape} pixels, the prediction '
                f'{prediction.shape}: load it after resizing in the test pipeline'
            )
    image = cv2.resize(image, prediction.shape[::-1])
    return Segmentation(image, prediction, truth, Path(path).stem)


class Segmentation(NamedTuple):
    """One image, uint8 RGB ``(H, W, 3)``, and the class of each pixel, ``(H, W)``."""

    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None  # None where it is not known
    name: str


class Classes(NamedTuple):
    """The classes of a data set: a name and an RGB colour, 0 to 255, for each."""

    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    ignore_index: int = 255  # the number in a map that stands for no class


def colour_classes(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """A map of classes ``(H, W)`` as uint8 RGB, ignored pixels white."""
    labels = np.asarray(labels).astype(np.int64)
    occurring_classes([labels], classes)
    ignored = labels == classes.ignore_index
    colours = np.asarray([*classes.palette, IGNORED_COLOUR], dtype=np.uint8)
    return colours[np.where(ignored, len(classes.palette), labels)]


def pixel_scores(
    prediction: np.ndarray, truth: np.ndarray, classes: Classes
) -> tuple[float, float]:
    """Share of right pixels and mean IoU of one image, in 0..1.

    Pixels that the truth ignores do not count. The mean is over the classes that occur
    in either map. (A data set's mean IoU sums over images first.) NaN where every pixel
    is ignored.
    """
    counted, count = truth != classes.ignore_index, len(classes.names)
    predicted, true = prediction[counted], truth[counted]
    if not true.size:
        return math.nan, math.nan
    right = np.bincount(true[predicted == true], minlength=count)
    either = np.bincount(np.concatenate([predicted, true]), minlength=count) - right
    ious = right[either > 0] / either[either > 0]
    return float(right.sum() / true.size), float(ious.mean())


def occurring_classes(maps: Sequence[np.ndarray], classes: Classes) -> list[int]:
    """Classes in any of the maps, in order, without the ignored number.

    Raises:
        UserError: for a number that is neither a class nor ignored.
    """
    found = set().union(*(np.unique(labels).tolist() for labels in maps))
    found -= {classes.ignore_index}
    count = len(classes.palette)
    wrong = sorted(label for label in found if not 0 <= label < count)
    if wrong:
        raise UserError(
            f'a map of classes holds the class {wrong[0]} but there are {count}, '
            f'numbered from 0, and {classes.ignore_index} for ignored pixels'
        )
    return sorted(found)


def draw_segmentations(
    figure: Figure, found: Sequence[Segmentation], classes: Classes, heading: str
) -> None:
    """One row for each image: itself, the truth where it is known, the prediction.

    Below stand the classes that occur in what is drawn. Ignored pixels are hatched. The
    figure has no axes, and gets its size here.
    """
    truths = [each.truth for each in found if each.truth is not None]
    columns = 3 if truths else 2
    handles = _legend([*(each.prediction for each in found), *truths], classes)
    width = _CELL * columns + 0.2
    per_line = max(min(_LEGEND_COLUMNS, int(width / _ENTRY)), 1)
    heights = [_CELL * each.image.shape[0] / each.image.shape[1] for each in found]
    foot = 0.2 + _LINE * -(-len(handles) // per_line)
    total = sum(heights) + _TITLE * len(found) + _HEAD + foot
    figure.set_size_inches(width, total)
    top = total - _HEAD
    for each, height in zip(found, heights, strict=True):
        top -= height + _TITLE
        size = (_CELL - 0.08) / width, height / total
        lefts = [(0.1 + column * _CELL) / width for column in range(columns)]
        row = [figure.add_axes((left, top / total, *size)) for left in lefts]
        _draw_row(row, each, classes)
    figure.suptitle(heading, x=0.1 / width, y=1 - 0.1 / total, ha='left', weight='bold')
    place = dict(loc='lower left', bbox_to_anchor=(0.05 / width, 0.02 / total))
    style = dict(frameon=False, fontsize=11, handlelength=1.4, handleheight=1.0)
    figure.legend(handles=handles, ncols=per_line, **place, **style)


def _draw_row(row: Sequence[Axes], each: Segmentation, classes: Classes) -> None:
    row[0].imshow(each.image)
    row[0].set_title(each.name, fontsize=11)
    title = 'prediction'
    if each.truth is not None:
        _draw_map(row[1], each.truth, classes)
        row[1].set_title('ground truth', fontsize=11)
        right, iou = pixel_scores(each.prediction, each.truth, classes)
        title = f'prediction: {100 * right:.1f} % right, mIoU {100 * iou:.1f} %'
    _draw_map(row[-1], each.prediction, classes)
    row[-1].set_title(title, fontsize=11)
    for axis in row:
        axis.set_axis_off()


def _draw_map(axis: Axes, labels: np.ndarray, classes: Classes) -> None:
    axis.imshow(colour_classes(labels, classes), interpolation='nearest')
    ignored = labels == classes.ignore_index
    if ignored.any():
        style = dict(levels=[0.5, 1.5], colors='none', hatches=[_HATCH])
        hatched = axis.contourf(ignored.astype(float), **style)
        hatched.set_edgecolor(_HATCH_COLOUR)
        hatched.set_linewidth(0)


def _legend(maps: Sequence[np.ndarray], classes: Classes) -> list[Patch]:
    handles = []
    for index in occurring_classes(maps, classes):
        colour = np.asarray(classes.palette[index]) / 255
        style = dict(facecolor=colour, edgecolor='#444444', label=classes.names[index])
        handles.append(Patch(linewidth=0.5, **style))
    if any((labels == classes.ignore_index).any() for labels in maps):
        style = dict(facecolor='white', edgecolor=_HATCH_COLOUR, label='ignored')
        handles.append(Patch(linewidth=0.5, hatch=_HATCH, **style))
    return handles
