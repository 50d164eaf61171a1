"""Every masking strategy side by side, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from medic_mm.pictures.layout import add_cells
from medic_mm.pictures.masks import MaskSettings, hide

_CELL = 1.55  # inches


def draw_masks(
    figure: Figure,
    pictures: Tensor,
    masks: Mapping[str, Tensor],
    grid: tuple[int, int],
    settings: MaskSettings,
) -> None:
    """One row an image: the input, then what each strategy leaves of it.

    Args:
        figure: A figure without axes; its size is set.
        pictures: ``(B, 3, H, W)``, RGB in 0..1.
        masks: Name of the strategy to bool ``(B, L)``, True = hidden.
        grid: Rows and columns of patches.
        settings: Those that the masks were drawn with, for the caption.
    """
    height, width = pictures.shape[2:]
    cells = add_cells(
        figure,
        (_CELL, _CELL * height / width),
        1 + len(masks),
        [0.06] * (len(pictures) - 1) + [0.0],
        _caption(masks, grid, settings),
        heading=0.24,
    )
    for axis, name in zip(cells[0], ('input', *masks), strict=True):
        axis.set_title(name, fontsize=11, pad=4)
    for row, picture, *hidden in zip(cells, pictures, *masks.values(), strict=True):
        row[0].imshow(picture.permute(1, 2, 0).numpy(), aspect='auto')
        for axis, mask in zip(row[1:], hidden, strict=True):
            axis.imshow(hide(picture, mask, grid).numpy(), aspect='auto')


def _evolved(masks: Mapping[str, Tensor]) -> bool:
    return any(name.startswith('evolved') for name in masks)


def _caption(
    masks: Mapping[str, Tensor], grid: tuple[int, int], settings: MaskSettings
) -> str:
    total, hidden = grid[0] * grid[1], settings.num_masked
    lines = [
        f'Hidden patches are grey: {hidden} of {grid[0]} x {grid[1]}, a mask ratio of '
        f'{hidden / total:.2f}.'
    ]
    if _evolved(masks):
        lines.append(
            f"Evolved masks hide clusters of the teacher's attention: K = "
            f'{settings.clusters}, alpha = {settings.alpha:g}; '
            f'spatial bias {settings.spatial_bias:g}.'
        )
    return '\n'.join(lines)
