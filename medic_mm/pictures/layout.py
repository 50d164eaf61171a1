"""Pages of equal cells below a caption, measured in inches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_EDGE = 0.08
_CAPTION_SIZE = 10  # points
_LINE = 1.35 * _CAPTION_SIZE / 72
#: Mean width of a letter of matplotlib's default font, and some to spare.
_LETTER = 0.58 * _CAPTION_SIZE / 72


def add_cells(
    figure: Figure,
    size: tuple[float, float],
    columns: int,
    below: Sequence[float],
    caption: str,
    heading: float = 0.0,
    left: float = 0.0,
    across: float = 0.06,
) -> np.ndarray:
    """Fill a figure with empty cells, and set its size to fit them.

    Args:
        figure: A figure without axes.
        size: ``(width, height)`` of a cell in inches.
        columns: Cells in a row.
        below: Inches between each row and the next; as many rows as numbers.
        caption: Text at the top, one line a sentence, broken where the page is narrow.
        heading: Inches above the first row for its titles.
        left: Inches left of the first column for names of rows.
        across: Inches between columns.

    Returns:
        ``(rows, columns)`` of axes without ticks or frames.
    """
    width, height = size
    page_width = _EDGE + left + columns * (width + across) - across + _EDGE
    lines = wrap_caption(caption, page_width)
    top = _EDGE + len(lines) * _LINE + 0.1 + heading
    page_height = top + sum(height + gap for gap in below) + _EDGE
    figure.set_size_inches(page_width, page_height)
    figure.text(
        *(_EDGE / page_width, 1 - _EDGE / page_height, '\n'.join(lines)),
        ha='left',
        va='top',
        fontsize=_CAPTION_SIZE,
        linespacing=1.3,
    )
    cells = np.empty((len(below), columns), dtype=object)
    upper = page_height - top
    for row, gap in enumerate(below):
        for column in range(columns):
            x, y = _EDGE + left + column * (width + across), upper - height
            box = (x / page_width, y / page_height)
            share = (width / page_width, height / page_height)
            cells[row, column] = figure.add_axes((*box, *share))
            cells[row, column].set_axis_off()
        upper -= height + gap
    return cells


def wrap_caption(caption: str, page_width: float) -> list[str]:
    """Lines of a caption that fit a page of so many inches."""
    letters = max(int((page_width - 2 * _EDGE) / _LETTER), 20)
    lines = [textwrap.wrap(line, letters) for line in caption.splitlines()]
    return [part for line in lines for part in line]
