"""Masks of one image by every strategy, and what they leave to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from medic_mm.masking import block_mask, evolved_mask, grid_mask, random_mask

#: The shade of hidden patches.
HIDDEN_GREY = 0.55


@dataclass(frozen=True)
class MaskSettings:
    """How the masks of a picture are drawn.

    Attributes:
        num_masked: Hidden patches per image.
        clusters: Parts of the evolved masks.
        alpha: Weight of the parts, 0 to 1.
        spatial_bias: Weight of the distance in the last strategy.
        min_area: Least area of a block in patches.
        seed: Of all strategies.
    """

    num_masked: int
    clusters: int = 20
    alpha: float = 1.0
    spatial_bias: float = 1.0
    min_area: int = 16
    seed: int = 0


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


def hide(picture: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A picture with its hidden patches grey.

    Args:
        picture: ``(3, H, W)``, RGB in 0..1.
        mask: bool ``(L,)``, row-major.
        grid: Rows and columns of patches.

    Returns:
        ``(H, W, 3)``.
    """
    height, width = picture.shape[1:]
    hidden = mask[patch_numbers(grid, (height, width))]
    return picture.masked_fill(hidden, HIDDEN_GREY).permute(1, 2, 0)
