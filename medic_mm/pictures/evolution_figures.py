"""Clusters and evolved masks over the epochs, drawn with matplotlib."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from medic_mm.pictures.evolution import (
    EvolutionSettings,
    Stage,
    follow_clusters,
)
from medic_mm.pictures.layout import add_cells
from medic_mm.pictures.masks import hide, patch_numbers

_CELL = 1.55  # inches
_LEFT = 1.1
_STRENGTH = 0.62  # of the colours over the image


def draw_evolution(
    figure: Figure,
    picture: Tensor,
    stages: Sequence[Stage],
    index: int,
    grid: tuple[int, int],
    settings: EvolutionSettings,
) -> None:
    """One image: for each method a row of cluster maps and a row of masks.

    Args:
        figure: A figure without axes; its size is set.
        picture: ``(3, H, W)``, RGB in 0..1.
        stages: All epochs of the first method, then of the next.
        index: Place of the image in the batch of the stages.
        grid: Rows and columns of patches.
        settings: Those of the stages, for the caption.
    """
    columns = len(settings.at)
    methods = [stages[at : at + columns] for at in range(0, len(stages), columns)]
    height, width = picture.shape[1:]
    cells = add_cells(
        figure,
        (_CELL, _CELL * height / width),
        columns,
        [0.24, 0.12] * (len(methods) - 1) + [0.24, 0.0],
        _caption(grid, settings),
        heading=0.4,
        left=_LEFT,
    )
    for axis, stage in zip(cells[0], stages, strict=False):
        axis.set_title(
            f'epoch {stage.epoch}\nK = {stage.num_clusters}, alpha = {stage.alpha:.2f}',
            fontsize=10,
            pad=4,
        )
    numbers = _same_colours(methods, index)
    for row, method in enumerate(methods):
        _name_rows(cells[2 * row : 2 * row + 2, 0], method[0].method)
        for column, stage in enumerate(method):
            above, below = cells[2 * row : 2 * row + 2, column]
            _show_clusters(above, picture, numbers[row][column], grid)
            _write(above, _measures(stage, index))
            below.imshow(hide(picture, stage.masks[index], grid), aspect='auto')


def _same_colours(methods: Sequence[Sequence[Stage]], index: int) -> list[list[Tensor]]:
    """Cluster numbers by method and epoch; the last epochs lead, as they have least."""
    numbers: list[list[Tensor]] = []
    for method in methods:
        maps = [stage.ids[index] for stage in reversed(method)]
        lead = [numbers[0][-1]] if numbers else []
        followed = follow_clusters([*lead, *maps])[len(lead) :]
        numbers.append(followed[::-1])
    return numbers


def cluster_colours(count: int) -> Tensor:
    """Colours ``(count, 3)`` in 0..1, neighbours in number far apart in hue."""
    golden = 0.618034
    shades = ((0.75, 0.95), (0.95, 0.65), (0.45, 1.0))  # saturation and value
    return torch.tensor(
        [colorsys.hsv_to_rgb(n * golden % 1, *shades[n % 3]) for n in range(count)]
    )


def colour_clusters(picture: Tensor, ids: Tensor, grid: tuple[int, int]) -> Tensor:
    """Clusters as colours through which the image shimmers in grey.

    Args:
        picture: ``(3, H, W)``, RGB in 0..1.
        ids: long ``(L,)``, row-major.
        grid: Rows and columns of patches.

    Returns:
        ``(H, W, 3)``.
    """
    height, width = picture.shape[1:]
    colours = cluster_colours(int(ids.max()) + 1)
    painted = colours[ids[patch_numbers(grid, (height, width))]]
    grey = picture.mean(0).unsqueeze(-1)
    return painted * _STRENGTH + grey * (1 - _STRENGTH)


def _show_clusters(
    axis: Axes, picture: Tensor, ids: Tensor, grid: tuple[int, int]
) -> None:
    axis.imshow(
        colour_clusters(picture, ids, grid).numpy(),
        aspect='auto',
        extent=(0, grid[1], grid[0], 0),
    )
    lines = LineCollection(_borders(ids.view(grid).numpy()), colors='white', lw=0.8)
    axis.add_collection(lines)


def _borders(ids: np.ndarray) -> list[list[tuple[int, int]]]:
    """Lines between neighbouring patches of different clusters, in patches (x, y)."""
    upright = np.argwhere(ids[:, 1:] != ids[:, :-1])
    level = np.argwhere(ids[1:] != ids[:-1])
    lines = [[(x + 1, y), (x + 1, y + 1)] for y, x in upright.tolist()]
    return lines + [[(x, y + 1), (x + 1, y + 1)] for y, x in level.tolist()]


def _measures(stage: Stage, index: int) -> str:
    return (
        f'{stage.components[index]:.2f}  |  {stage.boundary[index]:.2f}  |  '
        f'{int(stage.largest[index])}'
    )


def _name_rows(pair: np.ndarray, method: str) -> None:
    """The method's name beside its maps, and what the numbers below them are."""
    maps, masks = pair
    for axis, text, size in ((maps, f'{method}\nclusters', 11), (masks, 'masks', 11)):
        axis.text(
            *(-0.06, 0.5, text),
            transform=axis.transAxes,
            ha='right',
            va='center',
            fontsize=size,
        )


def _write(axis: Axes, text: str) -> None:
    axis.text(
        *(0.5, -0.03, text),
        transform=axis.transAxes,
        ha='center',
        va='top',
        fontsize=9.5,
    )


def _caption(grid: tuple[int, int], settings: EvolutionSettings) -> str:
    total, hidden = grid[0] * grid[1], settings.num_masked
    return (
        f"Clusters of the teacher's attention over {settings.epochs} epochs, and masks "
        f'drawn from them ({hidden} of {total} patches hidden). '
        f'Spatial bias {settings.spatial_bias:g}.\n'
        'Below the clusters: connected pieces per cluster  |  share of neighbouring '
        f'patches in different clusters  |  patches in the largest, of {total}.'
    )
