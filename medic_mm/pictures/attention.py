"""Where the class token looks, head by head: ``tools/visualize.py attention``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from medic_mm.models.vit.attention import (
    ClassAttention,
    join_batches,
    student_attention,
)
from medic_mm.pictures import (
    Drawn,
    add_images,
    add_model,
    add_no_teacher,
    add_output,
    register_picture,
)
from medic_mm.pictures.common import (
    file_of_image,
    open_networks,
    require_folder,
    save_figure,
    write,
)

_COLOURS = 'viridis'  # even steps for the eye, in grey and for colour-blind readers
_CELL = 1.75  # inches
_SMALL_CELL = 1.0
_MAPS_PER_ROW = 6
_MAPS_ON_ONE_LINE = 14
#: How maps are enlarged to the image's size.
INTERPOLATIONS = ('nearest', 'bilinear')
#: More images would make a picture too tall to look at.
_MOST_IN_OVERVIEW = 16


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_attention`."""
    add_model(parser)
    add_images(parser)
    parser.add_argument('--block', type=int, help="the student's, from 1; default last")
    add_no_teacher(parser, "leave out the teacher's maps")
    parser.add_argument(
        '--interpolation',
        choices=INTERPOLATIONS,
        help='how maps are enlarged; default nearest, which shows the patches',
    )
    parser.add_argument(
        '--overlay', action='store_true', help='draw the maps over the image'
    )
    add_output(parser)


@register_picture(
    'attention', 'class-token attention, student against teacher', add_arguments
)
def visualize_attention(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    block: int | None = None,
    with_teacher: bool = True,
    limit: int = 8,
    interpolation: str = 'nearest',
    overlay: bool = False,
    device: str = 'auto',
) -> Drawn:
    """Draw the class token's attention: every head of the student and of the teacher.

    Writes ``overview.png`` and one picture per image to ``out``. The teacher's block is
    the one that its targets come from. Arguments are those of :func:`add_arguments`;
    ``config`` is one of pre-training with a ViT as ``model.backbone``.

    Raises:
        UserError: for images, weights, a block or a backbone that cannot be used; one
            sentence names what would be right.
    """
    folder = require_folder(out)
    wanted = 'attention' if with_teacher else None
    opened = open_networks(config, checkpoint, images, limit, device, wanted)
    backbone: Any = opened.student.backbone
    teacher: Any = opened.teacher
    pictures, found = opened.read(
        dict(
            student=lambda batch, *_: student_attention(backbone, batch, block),
            teacher=lambda *batch: teacher.class_attention(*batch),
        )
    )
    sides = [join_batches(parts) for parts in found.values()]
    most, total = _MOST_IN_OVERVIEW, len(pictures)
    figure = Figure()
    draw_overview(figure, pictures[:most], sides, interpolation)
    files = [save_figure(figure, folder / 'overview.png')]
    for index, path in enumerate(opened.paths):
        figure = Figure()
        draw_attention(figure, pictures[index], sides, index, interpolation, overlay)
        files.append(save_figure(figure, file_of_image(folder, index, path)))
    cut = f'overview.png shows the first {most} of {total} images.'
    return Drawn(files, [*opened.notes, *([cut] if total > most else [])])


def draw_attention(
    figure: Figure,
    picture: Tensor,
    sides: Sequence[ClassAttention],
    index: int,
    interpolation: str = 'nearest',
    overlay: bool = False,
) -> None:
    """One image and all its maps; sets the size of the figure.

    Each map has its own colours, from 0 to its maximum, which is written below it:
    heads differ by orders of magnitude. ``picture`` is ``(3, H, W)``, RGB in 0..1, and
    ``index`` its place in the batch of maps; ``sides`` are the student's maps, then the
    teacher's. ``overlay`` draws maps half transparent over the image in grey.
    """
    heads = max(side.weights.shape[1] for side in sides)
    per_row = min(_MAPS_PER_ROW, heads)
    lines = [-(-side.weights.shape[1] // per_row) for side in sides]
    figure.set_size_inches(
        _CELL * (per_row + 1) + 1.1, (_CELL + 0.42) * sum(lines) + 0.9
    )
    figure.set_layout_engine('constrained', w_pad=0.06, h_pad=0.06)
    axes = figure.subplots(sum(lines), per_row + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    first = 0
    for side, count in zip(sides, lines, strict=True):
        _show_picture(axes[first, 0], picture)
        cells = axes[first : first + count, 1:].ravel()
        for axis, weights, label in zip(
            cells, side.weights[index], side.labels, strict=False
        ):
            _show_map(axis, weights, picture, interpolation, overlay)
            axis.set_title(label, fontsize=10)
        first += count
    _add_scale(figure, axes, sides, overlay)


def draw_overview(
    figure: Figure,
    pictures: Tensor,
    sides: Sequence[ClassAttention],
    interpolation: str = 'nearest',
) -> None:
    """All images with all their maps, small; sets the size of the figure.

    One line for each image where all maps fit on it, else one line for the student and
    one for the teacher. Heads are in their order from left to right. Arguments are as
    in :func:`draw_attention`.
    """
    maps = sum(side.weights.shape[1] for side in sides)
    lines = [sides] if maps <= _MAPS_ON_ONE_LINE else [[side] for side in sides]
    columns = max(sum(side.weights.shape[1] for side in line) for line in lines)
    total = len(pictures) * len(lines)
    figure.set_size_inches(
        _SMALL_CELL * (columns + 1) + 1.6, (_SMALL_CELL + 0.08) * total + 1.3
    )
    figure.set_layout_engine('constrained', w_pad=0.02, h_pad=0.02)
    axes = figure.subplots(total, columns + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, cells in enumerate(axes):
        image, line = divmod(row, len(lines))
        if line == 0:
            _show_picture(cells[0], pictures[image], titled=False)
        if len(lines) > 1:
            name = lines[line][0].owner
            write(cells[0], -0.1, 0.5, name, 'right', 'center', 10)
        names = [name for side in lines[line] for name in _short_names(side)]
        found = [weights for side in lines[line] for weights in side.weights[image]]
        for axis, weights, name in zip(cells[1:], found, names, strict=False):
            _show_map(axis, weights, pictures[image], interpolation, titled=False)
            if image == 0:
                axis.set_title(name, fontsize=10)
    axes[0, 0].set_title('input', fontsize=10)
    _add_scale(figure, axes, sides)


def _short_names(side: ClassAttention) -> list[str]:
    if side.mean_of is not None:
        return [f'{side.owner}\nmean of {side.mean_of}']
    count = side.weights.shape[1]
    return [f'{side.owner}\nhead {number}' for number in range(1, count + 1)]


def _show_picture(axis: Axes, picture: Tensor, titled: bool = True) -> None:
    axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation='nearest')
    if titled:
        axis.set_title('input', fontsize=10)


def _show_map(
    axis: Axes,
    weights: Tensor,
    picture: Tensor,
    interpolation: str,
    overlay: bool = False,
    titled: bool = True,
) -> None:
    rows, columns = picture.shape[1:]
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    if overlay:
        axis.imshow(picture.mean(0).numpy(), cmap='gray', vmin=0, vmax=1)
    axis.imshow(
        weights.numpy(),
        cmap=_COLOURS,
        vmin=0,
        vmax=float(weights.max()),
        extent=extent,
        interpolation=interpolation,
        alpha=0.6 if overlay else 1.0,
    )
    if titled:
        most = f'max. {float(weights.max()):.2g}'
        write(axis, 0.5, -0.05, most, 'center', 'top', 9)


def _add_scale(
    figure: Figure,
    axes: np.ndarray,
    sides: Sequence[ClassAttention],
    overlay: bool = False,
) -> None:
    """The colour bar, and what the colours mean."""
    height = figure.get_size_inches()[1]
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), _COLOURS),
        ax=axes,
        ticks=[0, 1],
        fraction=0.02,
        aspect=14,
        shrink=min(0.8, 2.6 / height),
        anchor=(0.0, 0.9),
        alpha=0.6 if overlay else 1.0,
    )
    bar.ax.set_yticklabels(['0', 'max.\nof the\nmap'], fontsize=10)
    blocks = ' and '.join(f'block {side.block} of the {side.owner}' for side in sides)
    even = {side.owner: f'{1 / (1 + side.weights[0, 0].numel()):.2g}' for side in sides}
    if len(set(even.values())) == 1:
        shown = even[sides[0].owner]
    else:
        shown = ', '.join(f'{value} ({owner})' for owner, value in even.items())
    figure.suptitle(
        f'Class-token attention in {blocks}.\nEach map has its own scale; equal '
        f'attention to all tokens would be {shown}.',
        fontsize=11,
        wrap=True,
    )
