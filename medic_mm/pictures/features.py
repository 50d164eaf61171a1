"""Patch tokens as colours: ``tools/visualize.py features``."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor, nn

from medic_mm.models.teachers import FrozenTeacher
from medic_mm.models.vit.attention import recorded_outputs
from medic_mm.models.vit.qkv import QKV
from medic_mm.pictures import (
    Drawn,
    add_images,
    add_model,
    add_no_teacher,
    add_output,
    register_picture,
)
from medic_mm.pictures.common import (
    add_cells,
    open_networks,
    require_folder,
    save_figure,
    write,
)

#: Share of the patches that is cut off at either end of a colour's scale.
_CUT = 0.01
_CELL = 1.55  # inches
_IN_A_ROW = 8
_INPUT = 'input'
_CAPTION = (
    'Patches in the colours of their tokens: the first three principal components as '
    'red, green and blue.\nEach network has its own, over all images together; equal '
    'colours are similar tokens.'
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_features`."""
    add_model(parser)
    add_images(parser)
    parser.add_argument('--block', type=int, help="the student's, from 1; default last")
    add_no_teacher(parser, "leave out the teacher's tokens")
    add_output(parser)


@register_picture(
    'features', 'patch tokens as colours, student against teacher', add_arguments
)
def visualize_features(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    block: int | None = None,
    with_teacher: bool = True,
    limit: int = 8,
    device: str = 'auto',
) -> Drawn:
    """Draw the patch tokens of teacher and student by their principal components.

    Writes ``features.png`` to ``out``. The student's last block is shown after its
    norm; of the teacher what it hands to the student: its patch tokens, or of an MAE of
    MIM-HD the values of its block, heads joined. Arguments are those of
    :func:`add_arguments`; ``config`` is one of pre-training with a ViT.

    Raises:
        UserError: for images, weights, a block or a backbone that cannot be used; one
            sentence names what would be right.
    """
    folder = require_folder(out)
    wanted = 'its tokens' if with_teacher else None
    opened = open_networks(config, checkpoint, images, limit, device, wanted)
    backbone: Any = opened.student.backbone
    pictures, found = opened.read(
        dict(
            teacher=partial(teacher_tokens, opened.teacher),
            student=lambda batch, *_: student_tokens(backbone, batch, block),
        )
    )
    figure = Figure()
    draw_features(figure, pictures, {k: join_tokens(v) for k, v in found.items()})
    return Drawn([save_figure(figure, folder / 'features.png')], opened.notes)


@dataclass(frozen=True)
class PatchTokens:
    """Tokens of the patches of some images."""

    values: Tensor  # float32 (B, L, D) on the CPU, row-major
    grid: tuple[int, int]  # rows and columns of patches; L = rows * columns
    what: str  # where they are from, such as 'block 12'


@torch.no_grad()
def student_tokens(
    backbone: nn.Module, images: Tensor, block: int | None = None
) -> PatchTokens:
    """Output of a block of a backbone on whole images; of the last, after its norm.

    The backbone should be in eval mode. One that masks hides nothing here.

    Args:
        backbone: A ViT of this package or of mmpretrain.
        images: Normalised images ``(B, 3, H, W)``.
        block: Number of the block, from 1. Default: the last.

    Raises:
        ValueError: for another backbone, or one that has no such block.
    """
    number = _block_number(backbone, block)
    layers: Any = backbone.layers
    normed = number == len(layers) and getattr(backbone, 'final_norm', False)
    source = cast(nn.Module, backbone.norm1 if normed else layers[number - 1])
    embed = cast(nn.Module, backbone.patch_embed)
    takes_mask = 'mask' in inspect.signature(backbone.forward).parameters
    with recorded_outputs(source) as tokens, recorded_outputs(embed) as embedded:
        backbone(images, **({'mask': None} if takes_mask else {}))
    first = getattr(backbone, 'num_extra_tokens', 1)
    _, (rows, columns) = embedded[0]
    patches = tokens[0][:, first:].float().cpu()
    return PatchTokens(patches, (rows, columns), f'block {number}')


@torch.no_grad()
def teacher_tokens(
    teacher: FrozenTeacher, images: Tensor, mean: Tensor, std: Tensor
) -> PatchTokens:
    """The patch tokens that a teacher hands to its student.

    A ``CachedTeacher`` is asked for the teacher behind it. Of a teacher that returns
    queries, keys and values, the values of all heads are joined.

    Arguments are those of :meth:`FrozenTeacher.forward`.
    """
    known: Any = teacher.uncached
    out = known(images, mean, std)
    if isinstance(out, QKV):
        joined = out.without_cls().value.transpose(1, 2).flatten(2)  # (B, L, M * d)
        what = f'values of block {known.block}'
        return PatchTokens(joined.float().cpu(), known.native_grid, what)
    layer = getattr(known, 'layer', None)
    what = 'patch tokens' if layer is None else f'block {layer + 1}'
    return PatchTokens(out.patch_tokens.float().cpu(), known.grid, what)


def join_tokens(parts: Sequence[PatchTokens]) -> PatchTokens:
    """One object for all batches of the same network."""
    return replace(parts[0], values=torch.cat([part.values for part in parts]))


def _block_number(backbone: nn.Module, block: int | None) -> int:
    # a ResNet has no blocks in a row, a Swin no tokens of patches
    if not len(getattr(backbone, 'layers', ())) or not hasattr(backbone, 'pos_embed'):
        raise ValueError(
            f'patch tokens cannot be read from {type(backbone).__name__}: it takes a '
            "plain ViT, such as medic_mm's MaskedViT and RelationViT or mmpretrain's "
            'VisionTransformer, MAEViT and BEiTViT'
        )
    number = len(backbone.layers) if block is None else block
    if not 1 <= number <= len(backbone.layers):
        raise ValueError(
            f'block={block} is out of range: {type(backbone).__name__} has blocks 1 to '
            f'{len(backbone.layers)}'
        )
    return number


@torch.no_grad()
def pca_colours(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Colour each patch by the three leading principal components of its token.

    The components are those of all patches of all images together, so equal colours
    mean similar tokens, across images too. Each component is scaled by itself from its
    1st to its 99th percentile, and what lies beyond is cut.

    A component has no sign of its own: here the coordinate with the largest magnitude
    is positive, so the same tokens give the same colours.

    Args:
        tokens: Patch tokens ``(N, L, D)``, row-major.
        grid: Rows and columns of patches; L = rows * columns.

    Returns:
        float32 ``(N, rows, columns, 3)`` in 0..1 on the CPU: red, green and blue are
        the first, second and third component. A component without spread is 0.5.

    Raises:
        ValueError: where ``grid`` does not fit ``tokens``.
    """
    rows, columns = grid
    if tokens.ndim != 3 or tokens.shape[1] != rows * columns:
        raise ValueError(
            f'grid={tuple(grid)} has {rows * columns} patches, but the tokens have the '
            f'shape {tuple(tokens.shape)}: it must be (N, {rows * columns}, D)'
        )
    scores = _leading_scores(tokens.detach().flatten(0, 1).double().cpu())
    low, high = scores.quantile(torch.tensor([_CUT, 1 - _CUT]).to(scores), dim=0)
    spread = high - low
    flat = spread <= 1e-9 * scores.abs().amax().clamp(min=1e-30)
    colours = ((scores - low) / spread.where(~flat, 1.0)).clamp(0, 1)
    colours = colours.masked_fill(flat, 0.5)
    return colours.float().view(len(tokens), rows, columns, 3)


@torch.no_grad()
def explained_share(tokens: Tensor) -> float:
    """Share of the variance of tokens ``(N, L, D)`` that the three components have.

    0 where nothing varies.
    """
    points = tokens.detach().flatten(0, 1).double().cpu()
    variances = torch.linalg.eigvalsh(_covariance(points))
    return float(variances[-3:].sum() / variances.sum().clamp(min=1e-30))


def _covariance(points: Tensor) -> Tensor:
    """Of the D channels, times the number of points."""
    centred = points - points.mean(0)
    return centred.T @ centred


def _leading_scores(points: Tensor) -> Tensor:
    """Coordinates ``(P, 3)`` of points ``(P, D)`` along their leading components."""
    # of the D x D covariance: D is hundreds, the patches may be many thousands
    _, vectors = torch.linalg.eigh(_covariance(points))
    axes = vectors[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = (points - points.mean(0)) @ (axes * largest.sign())
    missing = 3 - scores.shape[1]  # tokens of one or two channels
    return F.pad(scores, (0, missing)) if missing > 0 else scores


def draw_features(
    figure: Figure, pictures: Tensor, sides: Mapping[str, PatchTokens]
) -> None:
    """One column an image: the input, then the colours of each side.

    Each side has principal components of its own, over all images shown. ``pictures``
    are ``(B, 3, H, W)``, RGB in 0..1; ``sides`` are tokens of these images by name. The
    size of the figure is set.
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
    anchor = 'center' if side is None else 'bottom'
    write(axis, -0.06, 0.54, name, 'right', anchor, 12)
    if side is not None:
        share = f'{explained_share(side.values):.0%} of the\nvariance'
        below = f'{side.what}\n{share}'
        write(axis, -0.06, 0.5, below, 'right', 'top', 9.5, color='#444444')
