"""Drawings of reconstructions: three rows to look at quickly, or all there is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from medic_mm.pictures.reconstruction import Reconstruction

#: Said below every picture of pixels that were predicted per-patch normalised.
NORMALISED_NOTE = (
    'Hidden patches are predicted with mean and contrast taken away; to show them, '
    'each gets its own true mean and standard deviation back. Visible patches are '
    'copied.'
)
_MEANS_NOTE = (
    'The last row shows what these means alone make of the picture: one number for all '
    'pixels and colours of a predicted patch.'
)
_ERROR_NOTE = 'Errors are mean squares over the predicted patches'
_SHARE = ', as a share of the variance within each (1 = no better than its mean).'
_MEANS = 'true means\nonly'
_WITH_ERROR = ('recon-\nstruction', 'from\nview 1', 'from\nview 2')
_CELL = 1.35  # inches, as all below
_GAP = 0.26
_MARGIN = 1.15
_EDGE = 0.1
_HEAD = 0.66
_LINE = 0.19


def draw_reconstruction(
    figure: FigureBase, reconstruction: Reconstruction, titles: Sequence[str]
) -> None:
    """Three rows of pictures: input, masked input, reconstruction.

    Args:
        figure: A figure or subfigure without axes.
        reconstruction: What to draw.
        titles: One per image, written above its column.
    """
    rows = {
        'input': reconstruction.images,
        'masked': reconstruction.masked,
        'recon-\nstruction': reconstruction.reconstructed,
    }
    _draw_rows(figure, rows, titles)


def draw_views(
    figure: Figure,
    reconstruction: Reconstruction,
    titles: Sequence[str],
    heading: str,
    notes: Sequence[str] = (),
) -> None:
    """All rows of :func:`rows_of`, with errors and notes; sets the figure's size.

    Args:
        figure: A figure without axes.
        reconstruction: What to draw.
        titles: One per image, written above its column.
        heading: Written above all.
        notes: Sentences below, before those on how to read the rows.
    """
    rows = rows_of(reconstruction)
    width = max(_CELL * len(titles) + _MARGIN + _EDGE, 6.0)
    text = '\n'.join(
        textwrap.fill(sentence, int(width * 13.5)) for sentence in (*notes, *_say(rows))
    )
    foot = 0.2 + _LINE * (text.count('\n') + 1)
    total = _CELL * len(rows) + _GAP * (len(rows) - 1) + _HEAD + foot
    figure.set_size_inches(width, total)
    axes = _draw_rows(figure, rows, titles, fontsize=10)
    errors = [view.error for view in reconstruction.views]
    places = [place for place, name in enumerate(rows) if name in _WITH_ERROR]
    for place, error in zip(places, errors, strict=True):
        for axis, value in zip(axes[place], error.tolist(), strict=True):
            axis.set_xlabel(f'error {value:.2f}', fontsize=9.5, labelpad=1)
    figure.subplots_adjust(
        left=_MARGIN / width,
        right=1 - _EDGE / width,
        bottom=foot / total,
        top=1 - _HEAD / total,
        wspace=0.04,
        hspace=_GAP / _CELL,
    )
    left = _EDGE / width
    figure.suptitle(heading, x=left, y=1 - _EDGE / total, ha='left', weight='bold')
    figure.text(left, 0.08 / total, text, fontsize=10, color='#444444', va='bottom')


def rows_of(reconstruction: Reconstruction) -> dict[str, Tensor]:
    """Names of rows to their pictures ``(N, 3, H, W)``, from the top.

    With one view: the input, masked, the reconstruction, and the predicted patches
    alone. With two: both, and the joint prediction, in which each patch comes from the
    view that hides it. For per-patch normalised pixels, last: true means in place of
    predictions.
    """
    rows = {'input': reconstruction.images}
    if reconstruction.joint is None:
        (view,) = reconstruction.views
        rows['masked'] = view.masked
        rows[_WITH_ERROR[0]] = view.reconstructed
        rows['predicted\nalone'] = view.alone
        last = view.guess
    else:
        for number, view in enumerate(reconstruction.views, start=1):
            rows[f'view {number}'] = view.masked
            rows[_WITH_ERROR[number]] = view.reconstructed
        rows['both,\npredicted\nalone'] = reconstruction.joint
        last = reconstruction.means
    if reconstruction.per_patch:
        rows[_MEANS] = last
    return rows


def _draw_rows(
    figure: FigureBase,
    rows: Mapping[str, Tensor],
    titles: Sequence[str],
    fontsize: float | None = None,
) -> list[list[Axes]]:
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha='right', va='center', labelpad=10)
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=fontsize)
    return axes.tolist()


def _say(rows: Mapping[str, Tensor]) -> list[str]:
    """What the reader must know of the rows."""
    if _MEANS not in rows:
        return [_ERROR_NOTE + ', of normalised pixels.']
    return [_ERROR_NOTE + _SHARE, NORMALISED_NOTE, _MEANS_NOTE]
