"""Patch tokens of student and teacher as colours, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from medic_mm.pictures.features import explained_share, pca_colours
from medic_mm.pictures.layout import add_cells
from medic_mm.pictures.patch_tokens import PatchTokens

_CELL = 1.55  # inches
_IN_A_ROW = 8
_INPUT = 'input'
_CAPTION = (
    'Patches in the colours of their tokens: the first three principal components as '
    'red, green and blue.\nEach network has its own, over all images together; equal '
    'colours are similar tokens.'
)


def draw_features(
    figure: Figure, pictures: Tensor, sides: Mapping[str, PatchTokens]
) -> None:
    """One column an image: the input, then the colours of each side.

    Each side has principal components of its own, over all images shown.

    Args:
        figure: A figure without axes; its size is set.
        pictures: ``(B, 3, H, W)``, RGB in 0..1.
        sides: Name, such as ``'teacher'``, to its tokens of the same images.
    """
    total = len(pictures)
    bands = -(-total // _IN_A_ROW)
    columns = -(-total // bands)
    height, width = pictures.shape[2:]
    cells = add_cells(
        figure,
        (_CELL, _CELL * height / width),
        columns,
        ([0.06] * len(sides) + [0.22]) * (bands - 1) + [0.06] * len(sides) + [0.0],
        _CAPTION,
        left=1.2,
    )
    shown = {_INPUT: pictures.permute(0, 2, 3, 1).numpy()}
    for name, side in sides.items():
        shown[name] = pca_colours(side.values, side.grid).numpy()
    for image in range(total):
        band, column = divmod(image, columns)
        for line, rows in enumerate(shown.values()):
            axis = cells[band * len(shown) + line, column]
            axis.imshow(rows[image], aspect='auto', interpolation='nearest')
    for row, name in enumerate(list(shown) * bands):
        _name_row(cells[row, 0], name, sides.get(name))


def _name_row(axis: Axes, name: str, side: PatchTokens | None) -> None:
    axis.text(
        *(-0.06, 0.54, name),
        transform=axis.transAxes,
        ha='right',
        va='center' if side is None else 'bottom',
        fontsize=12,
    )
    if side is None:
        return
    share = explained_share(side.values)
    axis.text(
        *(-0.06, 0.5, f'{side.what}\n{share:.0%} of the\nvariance'),
        transform=axis.transAxes,
        ha='right',
        va='top',
        fontsize=9.5,
        color='#444444',
    )
