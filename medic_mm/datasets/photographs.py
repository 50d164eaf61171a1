"""The photographs that scikit-image carries inside its wheel, cut for two splits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

#: Name (as used in captions) and file of each photograph.
PHOTOGRAPHS = {
    'astronaut': 'astronaut.png',
    'brick': 'brick.png',
    'cat': 'chelsea.png',
    'coffee': 'coffee.png',
    'galaxies': 'hubble_deep_field.jpg',
    'grass': 'grass.png',
    'gravel': 'gravel.png',
    'motorcycle': 'motorcycle_left.png',
    'retina': 'retina.jpg',
    'rocket': 'rocket.jpg',
    'tissue': 'ihc.png',
}

#: Columns of every photograph that belong to a split, as fractions of its width.
CUTS = {'train': (0.0, 0.65), 'val': (0.65, 1.0)}

# left, top, right, bottom in fractions: the disc of the retina has black corners
_USED = {'retina': (0.15, 0.15, 0.85, 0.85)}


def photograph_folder() -> Path:
    """Where scikit-image keeps the photographs; it is not imported for that.

    Raises:
        RuntimeError: if scikit-image is not installed.
    """
    spec = find_spec('skimage')
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            'the built-in data set is made from photographs inside scikit-image, '
            'which is not installed: run "pip install scikit-image"'
        )
    return Path(spec.submodule_search_locations[0]) / 'data'


def split_box(name: str, split: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a photograph that belong to a split.

    Args:
        name: Key of :data:`PHOTOGRAPHS`.
        split: Key of :data:`CUTS`.
        height: Height of the photograph in pixels.
        width: Its width.
    """
    left, top, right, bottom = _USED.get(name, (0.0, 0.0, 1.0, 1.0))
    first, last = (left + (right - left) * cut for cut in CUTS[split])
    return (
        slice(round(top * height), round(bottom * height)),
        slice(round(first * width), round(last * width)),
    )


def load_photographs(split: str) -> list[np.ndarray]:
    """The part of every photograph that belongs to a split.

    Cut before any resizing, so that no pixel of one split leaks into the other.

    Args:
        split: ``'train'`` (left 65 % of the columns) or ``'val'`` (right 35 %).

    Returns:
        One uint8 BGR array ``(H, W, 3)`` per photograph, in the order of
        :data:`PHOTOGRAPHS`.

    Raises:
        RuntimeError: if a photograph is missing or cannot be read.
    """
    folder = photograph_folder()
    parts = []
    for name, file in PHOTOGRAPHS.items():
        path = folder / file
        image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
        if image is None:
            raise RuntimeError(
                f'the photograph {path} is missing or cannot be read: reinstall '
                'scikit-image ("pip install --force-reinstall scikit-image")'
            )
        parts.append(image[split_box(name, split, *image.shape[:2])])
    return parts
