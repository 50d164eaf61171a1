"""Drawings of segmentations: image, ground truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medic_mm.pictures.segmentation import (
    Classes,
    Segmentation,
    colour_classes,
    occurring_classes,
    pixel_scores,
)

_CELL = 3.6  # inches, as all below
_TITLE = 0.3
_HEAD = 0.45
_LINE = 0.24
_LEGEND_COLUMNS = 6
_INCHES_PER_ENTRY = 1.75
_HATCH = '////'
_HATCH_COLOUR = '#777777'


def draw_segmentations(
    figure: Figure, found: Sequence[Segmentation], classes: Classes, heading: str
) -> None:
    """One row for each image: itself, the truth where it is known, the prediction.

    Below stand the classes that occur in what is drawn. Ignored pixels are hatched. The
    title of a prediction with a truth gives its pixel accuracy and mean IoU.

    Args:
        figure: A figure without axes; its size is set here.
        found: The images with their maps.
        classes: Names and colours.
        heading: Written above all.
    """
    columns = 3 if any(each.truth is not None for each in found) else 2
    maps = [each.prediction for each in found]
    maps += [each.truth for each in found if each.truth is not None]
    handles = _legend(maps, classes)
    width = _CELL * columns + 0.2
    per_line = max(min(_LEGEND_COLUMNS, int(width / _INCHES_PER_ENTRY)), 1)
    heights = [_CELL * each.image.shape[0] / each.image.shape[1] for each in found]
    foot = 0.2 + _LINE * -(-len(handles) // per_line)
    total = sum(heights) + _TITLE * len(found) + _HEAD + foot
    figure.set_size_inches(width, total)
    top = total - _HEAD
    for each, height in zip(found, heights, strict=True):
        top -= height + _TITLE
        row = [
            figure.add_axes(_box(width, total, column, top, height))
            for column in range(columns)
        ]
        _draw_row(row, each, classes)
    figure.suptitle(heading, x=0.1 / width, y=1 - 0.1 / total, ha='left', weight='bold')
    figure.legend(
        handles=handles,
        ncols=per_line,
        loc='lower left',
        bbox_to_anchor=(0.05 / width, 0.02 / total),
        frameon=False,
        fontsize=11,
        handlelength=1.4,
        handleheight=1.0,
    )


def _box(
    width: float, total: float, column: int, bottom: float, height: float
) -> tuple[float, float, float, float]:
    left = 0.1 + column * _CELL
    return left / width, bottom / total, (_CELL - 0.08) / width, height / total


def _draw_row(row: Sequence[Axes], each: Segmentation, classes: Classes) -> None:
    row[0].imshow(each.image)
    row[0].set_title(each.name, fontsize=11)
    title = 'prediction'
    if each.truth is not None:
        _draw_map(row[1], each.truth, classes)
        row[1].set_title('ground truth', fontsize=11)
        scores = pixel_scores(each.prediction, each.truth, classes)
        title = (
            f'prediction: {100 * scores.accuracy:.1f} % right, '
            f'mIoU {100 * scores.mean_iou:.1f} %'
        )
    _draw_map(row[-1], each.prediction, classes)
    row[-1].set_title(title, fontsize=11)
    for axis in row:
        axis.set_axis_off()


def _draw_map(axis: Axes, labels: np.ndarray, classes: Classes) -> None:
    axis.imshow(colour_classes(labels, classes), interpolation='nearest')
    ignored = labels == classes.ignore_index
    if ignored.any():
        hatched = axis.contourf(
            ignored.astype(float), levels=[0.5, 1.5], colors='none', hatches=[_HATCH]
        )
        hatched.set_edgecolor(_HATCH_COLOUR)
        hatched.set_linewidth(0)


def _legend(maps: Sequence[np.ndarray], classes: Classes) -> list[Patch]:
    handles = [
        Patch(
            facecolor=np.asarray(classes.palette[index]) / 255,
            edgecolor='#444444',
            linewidth=0.5,
            label=classes.names[index],
        )
        for index in occurring_classes(maps, classes)
    ]
    if any((labels == classes.ignore_index).any() for labels in maps):
        handles.append(
            Patch(
                facecolor='white',
                edgecolor=_HATCH_COLOUR,
                hatch=_HATCH,
                linewidth=0.5,
                label='ignored',
            )
        )
    return handles
