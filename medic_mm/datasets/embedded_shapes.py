"""The built-in data set: shapes cut out of one photograph, pasted on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset

from medic_mm.checks import require_number, require_numbers
from medic_mm.datasets.photographs import CUTS, PHOTOGRAPHS, load_photographs
from medic_mm.datasets.shapes import SHAPES, draw_shape
from medic_mm.registry import DATASETS

_WHITE = np.uint8(255)
CLASSES = tuple(SHAPES)

#: All words that captions have.
CAPTION_WORDS = ('a', 'an', *CLASSES)

#: Short sides of the resized photographs, in multiples of the image's side.
ZOOMS = (1.25, 1.75, 2.5)
#: Radius of the shapes, in multiples of the image's side.
RADII = (0.28, 0.42)
#: Width of the white rim around a shape, also.
RIM = 1 / 32
#: Largest rotation either way, in turns.
ROTATION = 1 / 16


def make_caption(label: int) -> str:
    """Words for an image. They name the shape alone, not the photographs."""
    name = CLASSES[label]
    return f'an {name}' if name[0] in 'aeiou' else f'a {name}'


@lru_cache(maxsize=4)
def _textures(split: str, img_size: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """Each photograph's part for a split at every zoom, made once in a process."""
    textures = []
    for photograph in load_photographs(split):
        short = min(photograph.shape[:2])
        levels = []
        for zoom in ZOOMS:
            scale = zoom * img_size / short
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            size = [max(img_size, round(side * scale)) for side in photograph.shape[:2]]
            levels.append(cv2.resize(photograph, size[::-1], interpolation=method))
        textures.append(tuple(levels))
    return tuple(textures)


@DATASETS.register_module()
class EmbeddedShapes(BaseDataset):
    """Images of ten shapes, made on the fly: no files, no download.

    A shape is cut out of a crop of one of the photographs inside scikit-image and
    pasted, like a sticker with a white rim, on a crop of another one. Position, size,
    rotation and both crops are random, so neither colour nor texture tells the class:
    the outline does. Sample ``i`` is a pure function of ``(seed, split, i, img_size)``.
    The classes take turns (``i % 10``). Validation uses other parts of the photographs
    and other random numbers.

    A sample holds ``img`` (uint8 BGR ``(H, W, 3)``, as OpenMMLab loads files),
    ``img_shape``, ``ori_shape``, ``gt_label``, ``gt_seg_map`` (uint8 ``(H, W)``: 0
    background, label + 1 inside the shape and on its rim), ``caption`` and
    ``sample_idx``. The image is made when a sample is fetched; ``get_data_info`` alone
    is cheap.

    Args:
        split: ``'train'`` or ``'val'``.
        length: Number of samples. Costs no memory.
        img_size: Side of the images in pixels.
        seed: Another seed gives other images; 0 or more.
        pipeline: Transforms, as for every data set of mmpretrain.
        **kwargs: Passed to ``mmpretrain.BaseDataset``.

    Raises:
        ValueError: for an unknown split, a length below 1, images smaller than 16
            pixels, or a negative seed.
        RuntimeError: if scikit-image, or a photograph in it, is missing.
    """

    METAINFO = {'classes': CLASSES}

    def __init__(
        self,
        split: str = 'train',
        length: int = 10_000,
        img_size: int = 64,
        seed: int = 0,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs,
    ) -> None:
        if split not in CUTS:
            raise ValueError(f"split={split!r} is unknown: use 'train' or 'val'")
        sizes = dict(length=(length, 1), img_size=(img_size, 16), seed=(seed, 0))
        sizes['max_refetch'] = (kwargs.get('max_refetch', 1), 0)
        for name, (value, least) in sizes.items():
            require_number(self, name, value, low=least, integer=True)
        if kwargs.get('indices') is not None:
            require_numbers(self, 'indices', kwargs['indices'], integer=True)
        self.split = split
        self.length = length
        self.img_size = img_size
        self.seed = seed
        # a range is a list of indices that takes no memory: nothing to serialise
        super().__init__(ann_file='', pipeline=pipeline, serialize_data=False, **kwargs)

    def load_data_list(self) -> Sequence[int]:
        """The indices of the samples; also decodes the photographs.

        Done here, before a data loader forks, so that its workers share them.
        """
        _textures(self.split, self.img_size)
        return range(self.length)

    def get_data_info(self, idx: int) -> dict:
        """What is known of a sample without making its image."""
        self.full_init()  # once
        label = self.data_list[idx] % len(CLASSES)
        return {
            'sample_idx': idx % len(self),
            'gt_label': label,
            'caption': make_caption(label),
        }

    def get_gt_labels(self) -> np.ndarray:
        """Labels of all samples, int64 ``(N,)``."""
        return np.asarray(self.data_list) % len(CLASSES)

    def prepare_data(self, idx: int) -> dict | None:
        """Make sample ``idx`` and send it through the pipeline."""
        info = self.get_data_info(idx)
        image, seg_map = self._make_image(self.data_list[idx])
        info.update(
            img=image,
            img_shape=image.shape[:2],
            ori_shape=image.shape[:2],
            gt_seg_map=seg_map,
        )
        return self.pipeline(info)

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``."""
        return [
            f'Split: \t{self.split}',
            f'Image size: \t{self.img_size}',
            f'Seed: \t{self.seed}',
        ]

    def _generator(self, number: int) -> np.random.Generator:
        split = list(CUTS).index(self.split)
        return np.random.default_rng((self.seed, split, number))

    def _make_image(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        generator = self._generator(number)
        size = self.img_size
        textures = _textures(self.split, size)
        crops = [
            _random_crop(textures[photograph], size, generator)
            for photograph in _choose_photographs(generator)
        ]
        label = number % len(CLASSES)
        radius, x, y, turn = generator.random(4)
        radius = size * (RADII[0] + radius * (RADII[1] - RADII[0]))
        rim = max(1, round(RIM * size))
        least = radius + rim + 1  # a pixel of background all around
        centre = least + np.array([x, y]) * (size - 2 * least) - 0.5
        angle = 2 * np.pi * ROTATION * (2 * turn - 1)
        coverage = draw_shape(label, size, centre, radius, angle)
        pasted = cv2.dilate(coverage, _disc(rim))
        image = _blend(_WHITE, crops[1], pasted)
        image = _blend(crops[0], image, coverage)
        seg_map = (pasted >= 128) * np.uint8(label + 1)
        return image, seg_map


@lru_cache(maxsize=4)
def _disc(radius: int) -> np.ndarray:
    side = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _choose_photographs(generator: np.random.Generator) -> tuple[int, int]:
    """Foreground and background, two different ones."""
    count = len(PHOTOGRAPHS)
    foreground, step = generator.integers((0, 1), count)
    return int(foreground), int((foreground + step) % count)


def _random_crop(
    levels: Sequence[np.ndarray], size: int, generator: np.random.Generator
) -> np.ndarray:
    """A square crop at a random zoom, maybe mirrored."""
    zoom, top, left, mirror = generator.random(4)
    image = levels[int(zoom * len(levels))]
    top = int(top * (image.shape[0] - size + 1))
    left = int(left * (image.shape[1] - size + 1))
    crop = image[top : top + size, left : left + size]
    return crop[:, ::-1] if mirror < 0.5 else crop


def _blend(
    foreground: np.ndarray, background: np.ndarray, coverage: np.ndarray
) -> np.ndarray:
    """Foreground where covered, background elsewhere, mixed along the edge."""
    weight = coverage[..., None].astype(np.uint16)
    mixed = foreground * weight + background * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)
