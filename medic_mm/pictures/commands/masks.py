"""Every masking strategy side by side: ``tools/visualize.py masks``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.pictures.commands.attended import count_masked, least_block, read_attended
from medic_mm.pictures.common import Drawn, require_folder, save_figure
from medic_mm.pictures.mask_figures import draw_masks
from medic_mm.pictures.masks import MaskSettings, draw_all_masks


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

    Args:
        config: One of pre-training. None: no evolved masks, 14 x 14 patches.
        images: Image files, or folders of them.
        out: Folder to write ``masks.png`` to.
        ratio: Share of patches to hide. Default: the config's own, or 0.4.
        clusters: Parts of the evolved masks. Default: one for ten patches, at most 20.
        alpha: Weight of the parts against noise, 0 to 1.
        spatial_bias: Weight of the distance in the last column.
        seed: The same seed draws the same masks.
        with_teacher: False leaves the evolved masks out.
        limit: Take at most so many images.
        device: As in :func:`visualize_attention`.

    Raises:
        UserError: for images, settings or a config that cannot be used.
    """
    folder = require_folder(out)
    found = read_attended(config, images, limit, device, with_teacher)
    settings = MaskSettings(
        num_masked=count_masked(config, ratio, found.grid),
        clusters=clusters if clusters is not None else _few(found.grid),
        alpha=alpha,
        spatial_bias=spatial_bias,
        min_area=least_block(config),
        seed=seed,
    )
    try:
        masks = draw_all_masks(found.grid, len(found.paths), settings, found.attention)
    except ValueError as error:
        raise UserError(str(error)) from error
    figure = Figure()
    draw_masks(figure, found.pictures, masks, found.grid, settings)
    missing = ['Without a config there is no attention: no evolved masks.']
    notes = found.notes if config is not None else missing
    return Drawn([save_figure(figure, folder / 'masks.png')], notes)


def _few(grid: tuple[int, int]) -> int:
    return min(20, max(2, round(grid[0] * grid[1] / 10)))
