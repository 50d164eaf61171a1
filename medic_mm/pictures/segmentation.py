"""Maps of classes as colours, and how well one map fits another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What stands for no class; drawn white, to be hatched.
IGNORED_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Segmentation:
    """One image and its maps of classes.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``.
        prediction: Class of each pixel, ``(H, W)``.
        truth: The true classes, ``(H, W)``; None where they are not known.
        name: What the image is called.
    """

    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    name: str


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: One name each.
        palette: One RGB colour each, 0 to 255.
        ignore_index: The number in a map that stands for no class.
    """

    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    ignore_index: int = 255


@dataclass(frozen=True)
class PixelScores:
    """How well a prediction fits the truth of one image, in 0..1.

    Attributes:
        accuracy: Share of right pixels among those that are not ignored.
        mean_iou: Mean of intersection over union of the classes that occur in the truth
            or the prediction. (A data set's mean IoU sums over images first.)
    """

    accuracy: float
    mean_iou: float


def colour_classes(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """A map of classes as a picture.

    Args:
        labels: Whole numbers ``(H, W)``: classes from 0, or the ignored number.
        classes: Their colours.

    Returns:
        uint8 RGB ``(H, W, 3)``, ignored pixels :data:`IGNORED_COLOUR`.

    Raises:
        ValueError: for a number that is neither a class nor ignored.
    """
    labels = np.asarray(labels).astype(np.int64)
    occurring_classes([labels], classes)
    ignored = labels == classes.ignore_index
    colours = np.asarray([*classes.palette, IGNORED_COLOUR], dtype=np.uint8)
    return colours[np.where(ignored, len(classes.palette), labels)]


def pixel_scores(
    prediction: np.ndarray, truth: np.ndarray, classes: Classes
) -> PixelScores:
    """Compare the maps of one image; pixels that the truth ignores do not count.

    Args:
        prediction: Class of each pixel, ``(H, W)``.
        truth: The true classes, ``(H, W)``.
        classes: How many there are, and what is ignored.

    Returns:
        The scores; NaN where every pixel is ignored.
    """
    counted = truth != classes.ignore_index
    predicted, true = prediction[counted], truth[counted]
    if not true.size:
        return PixelScores(float('nan'), float('nan'))
    count = len(classes.names)
    right = np.bincount(true[predicted == true], minlength=count)
    either = (
        np.bincount(predicted, minlength=count)
        + np.bincount(true, minlength=count)
        - right
    )
    occurs = either > 0
    return PixelScores(
        accuracy=float(right.sum() / true.size),
        mean_iou=float((right[occurs] / either[occurs]).mean()),
    )


def occurring_classes(maps: Sequence[np.ndarray], classes: Classes) -> list[int]:
    """Classes in any of the maps, in order, without the ignored number.

    Raises:
        ValueError: for a number that is neither a class nor ignored.
    """
    found = set().union(*(np.unique(labels).tolist() for labels in maps))
    found -= {classes.ignore_index}
    count = len(classes.palette)
    wrong = sorted(label for label in found if not 0 <= label < count)
    if wrong:
        raise ValueError(
            f'a map of classes holds the class {wrong[0]} but there are {count}, '
            f'numbered from 0, and {classes.ignore_index} for ignored pixels'
        )
    return sorted(found)
