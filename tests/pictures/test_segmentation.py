"""Maps of classes: colours of the palette, scores against a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medic_mm.pictures.segmentation import (
    Classes,
    Segmentation,
    colour_classes,
    draw_segmentations,
    occurring_classes,
    pixel_scores,
)

CLASSES = Classes(
    ('sky', 'road', 'tree', 'car', 'bird'),
    ((1, 2, 3), (40, 50, 60), (0, 255, 0), (9, 8, 7), (200, 0, 90)),
)


def random_map(seed: int, classes: int = 5, ignored: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (13, 17))
    labels[random.random((13, 17)) < ignored] = 255
    return labels


def slow_scores(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Pixel by pixel and class by class."""
    pairs = [
        (int(p), int(t))
        for p, t in zip(prediction.flat, truth.flat, strict=True)
        if t != 255
    ]
    ratios = []
    for label in range(5):
        both = sum(p == label and t == label for p, t in pairs)
        either = sum(p == label or t == label for p, t in pairs)
        if either:
            ratios.append(both / either)
    right = sum(p == t for p, t in pairs)
    return right / len(pairs), sum(ratios) / len(ratios)


def test_colours_are_the_palettes_and_ignored_pixels_white():
    labels = random_map(0, ignored=0.2)
    colours = colour_classes(labels, CLASSES)
    for row in range(13):
        for column in range(17):
            label = labels[row, column]
            expected = (255, 255, 255) if label == 255 else CLASSES.palette[label]
            assert tuple(colours[row, column]) == expected


@pytest.mark.parametrize('wrong', [5, -1, 254])
def test_a_class_that_does_not_exist_is_named(wrong):
    labels = random_map(0)
    labels[3, 4] = wrong
    with pytest.raises(ValueError, match=f'holds the class {wrong} but there are 5'):
        colour_classes(labels, CLASSES)


@pytest.mark.parametrize('seed', range(4))
def test_scores_are_those_of_a_slow_count(seed):
    truth = random_map(seed, classes=3, ignored=0.3)
    # the prediction knows a class that the truth lacks, and neither has the last
    prediction = np.where(random_map(seed + 9) < 3, truth % 255, random_map(seed, 4))
    scores = pixel_scores(prediction, truth, CLASSES)
    assert scores == pytest.approx(slow_scores(prediction, truth))
    assert 0 < scores[1] < scores[0] < 1


def test_scores_of_a_right_and_of_an_ignored_image():
    truth = random_map(1)
    perfect = pixel_scores(truth, truth, CLASSES)
    assert perfect == (1.0, 1.0)
    nothing = pixel_scores(truth, np.full_like(truth, 255), CLASSES)
    assert all(map(math.isnan, nothing))


def test_another_ignored_number():
    classes = Classes(CLASSES.names, CLASSES.palette, ignore_index=4)
    truth, prediction = np.array([[0, 4, 1]]), np.array([[0, 1, 2]])
    assert pixel_scores(prediction, truth, classes)[0] == 0.5
    assert colour_classes(truth, classes)[0, 1].tolist() == [255, 255, 255]
    assert occurring_classes([truth, prediction], classes) == [0, 1, 2]


def test_what_is_drawn_is_image_truth_and_prediction_with_its_scores():
    random = np.random.default_rng(5)
    image = random.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    truth = random_map(2, classes=2, ignored=0.3)
    prediction = random_map(3, classes=3)
    found = [
        Segmentation(image, prediction, truth, 'known'),
        Segmentation(image, prediction, None, 'unknown'),
    ]
    figure = Figure()
    FigureCanvasAgg(figure)
    draw_segmentations(figure, found, CLASSES, 'A heading')
    figure.draw_without_rendering()
    known, blank = figure.axes[:3], figure.axes[3:]
    for axis, expected in zip(
        known,
        (image, colour_classes(truth, CLASSES), colour_classes(prediction, CLASSES)),
        strict=True,
    ):
        assert np.array_equal(axis.images[0].get_array(), expected)
    assert not blank[1].images
    assert np.array_equal(
        blank[2].images[0].get_array(), colour_classes(prediction, CLASSES)
    )
    scores = slow_scores(prediction, truth)
    title = f'{100 * scores[0]:.1f} % right, mIoU {100 * scores[1]:.1f} %'
    assert known[2].get_title() == f'prediction: {title}'
    assert known[0].get_title() == 'known'
    assert blank[2].get_title() == 'prediction'
    # one entry for each class that occurs, in its colour, and one for ignored pixels
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ['sky', 'road', 'tree', 'ignored']
    for patch, colour in zip(legend.get_patches()[:3], CLASSES.palette, strict=False):
        assert patch.get_facecolor()[:3] == pytest.approx(np.array(colour) / 255)
    assert legend.get_patches()[3].get_hatch()


def test_only_maps_with_ignored_pixels_are_hatched():
    whole, holed = random_map(4), random_map(4, ignored=0.3)
    image = np.zeros((13, 17, 3), np.uint8)
    figure = Figure()
    draw_segmentations(figure, [Segmentation(image, whole, holed, '')], CLASSES, '')
    _, truth, prediction = figure.axes
    assert [c.hatches for c in truth.collections] == [['////']]
    assert not prediction.collections
