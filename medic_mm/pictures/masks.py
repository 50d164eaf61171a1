"""Every masking strategy side by side: ``tools/visualize.py masks``."""

from __future__ import annotations

import colorsys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Generator, Tensor

from medic_mm.errors import UserError
from medic_mm.masking import block_mask, evolved_mask, grid_mask, random_mask
from medic_mm.pictures import (
    Drawn,
    add_images,
    add_no_teacher,
    add_output,
    register_picture,
)
from medic_mm.pictures.common import (
    HIDDEN_GREY,
    add_cells,
    require_folder,
    save_figure,
)
from medic_mm.pictures.inputs import (
    count_masked,
    find_mask_transform,
    least_block,
    read_attention,
)
from medic_mm.registry import TRANSFORMS
from medic_mm.settings.run_config import load_config

_CELL = 1.55  # inches
_STRENGTH = 0.62  # of clusters' colours over the image


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_masks`, and those of a config."""
    add_images(
        parser,
        '[CONFIG] IMAGES',
        'config of the pre-training (a .py file, first; without it no evolved masks), '
        'then image files or folders of them',
    )
    parser.add_argument(
        '--clusters',
        type=int,
        help='of evolved masks; default 20, fewer on small grids',
    )
    parser.add_argument('--alpha', type=float, help='weight of clusters against noise')
    add_masking(parser)
    add_no_teacher(parser, 'leave the evolved masks out')
    add_output(parser)


def add_masking(parser: ArgumentParser) -> None:
    """Add what all masks take."""
    parser.add_argument(
        '--ratio', type=float, help="share of patches to hide; default the config's"
    )
    parser.add_argument(
        '--spatial-bias', type=float, help='of the clusters with a bias; default 1'
    )
    parser.add_argument('--seed', type=int, help='of all masks; default 0')


@register_picture(
    'masks', 'every masking strategy side by side, at one ratio', add_arguments
)
def draw_words(
    images: list[str],
    cfg_options: dict | None = None,
    data_root: str | None = None,
    **options: Any,
) -> Drawn:
    """:func:`visualize_masks` where the first of the images may be a config."""
    config = None
    if images[0].endswith('.py'):
        path, *images = images
        config = load_config(path, cfg_options, data_root)
        if not images:
            raise UserError(f'no images: name files or folders after {path}')
    elif cfg_options or data_root:
        given = '--cfg-options' if cfg_options else '--data-root'
        raise UserError(f'{given} needs a config: name its .py file first')
    return visualize_masks(config, images, **options)


def visualize_masks(
    config: Config | None,
    images: Sequence[str | Path],
    out: str | Path,
    ratio: float | None = None,
    clusters: int | None = None,
    alpha: float = 1.0,
    spatial_bias: float = 1.0,
    seed: int = 0,
    with_teacher: bool = True,
    limit: int = 8,
    device: str = 'auto',
) -> Drawn:
    """Draw what random, block, grid and evolved masks of one ratio leave of images.

    Writes ``masks.png`` to ``out``. Arguments are those of :func:`add_arguments`. By
    default the ratio is the config's own, or 0.4, and evolved masks have a cluster for
    ten patches, at most 20. Without a config there are no evolved masks, and 14 x 14
    patches.

    Raises:
        UserError: for images, settings or a config that cannot be used.
    """
    folder = require_folder(out)
    found = read_attention(config, images, limit, device, with_teacher)
    length = found.grid[0] * found.grid[1]
    settings = MaskSettings(
        num_masked=count_masked(config, ratio, found.grid),
        clusters=min(20, max(2, round(length / 10))) if clusters is None else clusters,
        alpha=alpha,
        spatial_bias=spatial_bias,
        min_area=least_block(config),
        seed=seed,
    )
    masks = draw_all_masks(found.grid, len(found.paths), settings, found.attention)
    masks.update(draw_own_mask(config, found.grid, len(found.paths), settings))
    figure = Figure()
    draw_masks(figure, found.pictures, masks, found.grid, settings)
    return Drawn([save_figure(figure, folder / 'masks.png')], found.notes)


@dataclass(frozen=True)
class MaskSettings:
    """How the masks of a picture are drawn."""

    num_masked: int  # hidden patches per image
    clusters: int = 20  # parts of the evolved masks
    alpha: float = 1.0  # weight of the parts, 0 to 1
    spatial_bias: float = 1.0  # weight of the distance in the last strategy
    min_area: int = 16  # least area of a block in patches
    seed: int = 0  # of all strategies


def draw_all_masks(
    grid: tuple[int, int],
    batch: int,
    settings: MaskSettings,
    attention: Tensor | None = None,
) -> dict[str, Tensor]:
    """One mask per image and strategy.

    Args:
        grid: Rows and columns of patches; L = rows * columns.
        batch: Number of images B.
        settings: As named.
        attention: ``(B, L, L)``; without it the evolved strategies are left out.

    Returns:
        Name of the strategy to bool ``(B, L)``, True = hidden.

    Raises:
        ValueError: for a setting out of range.
    """
    count = settings.num_masked
    # each from a seed of its own: grid and random masks draw the same noise first
    seeds = iter(range(6 * settings.seed, 6 * settings.seed + 6))

    def seeded() -> Generator:
        return Generator().manual_seed(next(seeds))

    masks = {
        'random': random_mask(batch, grid, count, seeded()),
        'block': block_mask(batch, grid, count, seeded(), min_area=settings.min_area),
        'grid': grid_mask(batch, grid, count, seeded()),
    }
    if attention is None:
        return masks
    strength, parts = settings.alpha, settings.clusters
    for name, kind in evolved_kinds(settings.spatial_bias).items():
        masks[f'evolved: {name}'] = evolved_mask(
            attention, grid, count, strength, parts, generator=seeded(), **kind
        )
    return masks


def draw_own_mask(
    config: Config | None, grid: tuple[int, int], batch: int, settings: MaskSettings
) -> dict[str, Tensor]:
    """Masks of the config's transform by its name, where it is from outside."""
    step = find_mask_transform(config) if config is not None else None
    if step is None:
        return {}
    own = TRANSFORMS.build(dict(step, grid=grid, num_masked=settings.num_masked))
    if type(own).__module__.startswith('medic_mm.'):  # drawn with the others
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return {type(own).__name__: own.draw(batch, grid, settings.num_masked)}


def evolved_kinds(spatial_bias: float) -> dict[str, dict[str, Any]]:
    """The clusterings that are compared: name to arguments of ``evolved_mask``."""
    return {
        'EM': dict(method='em'),
        'HC': dict(method='hierarchical'),
        'HC + bias': dict(method='hierarchical', spatial_bias=spatial_bias),
    }


def patch_numbers(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The patch, 0..L-1, that each pixel of an image lies in: long ``(H, W)``."""
    (rows, columns), (height, width) = grid, size
    down = torch.arange(height) * rows // height
    across = torch.arange(width) * columns // width
    return down[:, None] * columns + across


def grey_out(picture: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A picture ``(3, H, W)`` as ``(H, W, 3)``, patches of ``mask (L,)`` grey."""
    height, width = picture.shape[1:]
    hidden = mask[patch_numbers(grid, (height, width))]
    return picture.masked_fill(hidden, HIDDEN_GREY).permute(1, 2, 0)


def draw_masks(
    figure: Figure,
    pictures: Tensor,
    masks: Mapping[str, Tensor],
    grid: tuple[int, int],
    settings: MaskSettings,
) -> None:
    """One row an image: the input, then what each strategy leaves of it.

    ``pictures`` are ``(B, 3, H, W)``, RGB in 0..1; ``masks`` and ``settings`` those of
    :func:`draw_all_masks`. The size of the figure is set.
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
            axis.imshow(grey_out(picture, mask, grid).numpy(), aspect='auto')


def _caption(
    masks: Mapping[str, Tensor], grid: tuple[int, int], settings: MaskSettings
) -> str:
    total, hidden = grid[0] * grid[1], settings.num_masked
    lines = [
        f'Hidden patches are grey: {hidden} of {grid[0]} x {grid[1]}, a mask ratio of '
        f'{hidden / total:.2f}.'
    ]
    if any(name.startswith('evolved') for name in masks):
        lines.append(
            f"Evolved masks hide clusters of the teacher's attention: K = "
            f'{settings.clusters}, alpha = {settings.alpha:g}; '
            f'spatial bias {settings.spatial_bias:g}.'
        )
    return '\n'.join(lines)


def cluster_colours(count: int) -> Tensor:
    """Colours ``(count, 3)`` in 0..1, neighbours in number far apart in hue."""
    golden = 0.618034
    shades = ((0.75, 0.95), (0.95, 0.65), (0.45, 1.0))  # saturation and value
    return torch.tensor(
        [colorsys.hsv_to_rgb(n * golden % 1, *shades[n % 3]) for n in range(count)]
    )


def colour_clusters(picture: Tensor, ids: Tensor, grid: tuple[int, int]) -> Tensor:
    """Clusters ``ids (L,)`` as colours over the grey picture ``(3, H, W)``.

    Returns:
        ``(H, W, 3)``.
    """
    height, width = picture.shape[1:]
    colours = cluster_colours(int(ids.max()) + 1)
    painted = colours[ids[patch_numbers(grid, (height, width))]]
    grey = picture.mean(0).unsqueeze(-1)
    return painted * _STRENGTH + grey * (1 - _STRENGTH)


def show_clusters(
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
