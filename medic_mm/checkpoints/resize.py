"""Weights for another image size or another patch size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from medic_mm.checkpoints.grid import Grid, find_grid
from medic_mm.errors import UserError

_POSITIONS = ('pos_embed', 'backbone.pos_embed')
_DECODER_POSITIONS = ('decoder_pos_embed', 'neck.decoder_pos_embed')
_PATCHES = (
    'patch_embed.proj.weight',
    'patch_embed.projection.weight',
    'backbone.patch_embed.projection.weight',
)
_DECODER = ('decoder_', 'mask_token', 'neck.')


def resize_weights(
    weights: Mapping[str, Tensor],
    img_size: int | None = None,
    patch_size: int | None = None,
    source_grid: Sequence[int] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fit weights to images or patches of another size.

    Position embeddings are interpolated (bicubic; the class token's is kept): enlarged
    they are what mmpretrain, mmseg and the official MAE make of them on loading, shrunk
    they are smoothed as well, as timm does. The patch embedding is resized by the
    pseudo-inverse of the interpolation of images (FlexiViT, arXiv 2212.08013): with
    larger patches on images enlarged as much, the tokens stay the same. Both are timm's
    functions.

    Args:
        weights: In any layout but ``'open_clip'``, with square patches.
        img_size: Pixels a side of a square image; None keeps that of the weights.
        patch_size: Pixels a side; None keeps it.
        source_grid: Rows and columns of patches that ``weights`` are for. Default: a
            square, which the log says.

    Returns:
        The weights, and names left out, each with a reason: a decoder, where the
        patches that it predicts have another size now.

    Raises:
        UserError: for weights without patch embedding or absolute positions, with
            relative ones, or a size that does not divide; for a number of patches that
            is not that of ``source_grid``, or without it not a square.
    """
    if img_size is None and patch_size is None:
        return dict(weights), {}
    patches = _find(weights, _PATCHES)
    positions = _find(weights, _POSITIONS)
    relative = [name for name in weights if 'relative_position' in name]
    if patches is None or positions is None or relative:
        problem = relative[0] if relative else 'no patch or position embedding'
        raise UserError(
            f'img_size={img_size}, patch_size={patch_size}: the weights cannot be '
            f'resized ({problem}); only absolute position embeddings can'
        )
    old_patch = weights[patches].shape[-1]
    grid, note = find_grid(
        weights[positions].shape[1] - 1, positions, 'the weights', source_grid
    )
    if note:
        logging.getLogger(__name__).warning(note)
    new_patch = old_patch if patch_size is None else patch_size
    new_grid = resized_grid(weights, grid, img_size, patch_size)
    resized = dict(weights)
    left_out: dict[str, str] = {}
    if new_patch != old_patch:
        reason = f'it predicts patches of {old_patch} pixels, not of {new_patch}'
        left_out = {name: reason for name in weights if name.startswith(_DECODER)}
        resized = {k: v for k, v in weights.items() if k not in left_out}
        resized[patches] = _resize_patches(weights[patches], new_patch)
    for name in (*_POSITIONS, *_DECODER_POSITIONS):
        if name in resized:
            resized[name] = _resize_positions(resized[name], grid, new_grid)
    return resized, left_out


def resized_grid(
    weights: Mapping[str, Tensor],
    grid: Grid,
    img_size: int | None,
    patch_size: int | None,
) -> Grid:
    """Rows and columns after :func:`resize_weights`, from those before.

    Raises:
        UserError: for a size that does not divide.
    """
    old_patch = weights[_find(weights, _PATCHES) or ''].shape[-1]
    patch = old_patch if patch_size is None else patch_size
    sides = [side * old_patch if img_size is None else img_size for side in grid]
    wrong = [side for side in sides if patch < 1 or side < 1 or side % patch]
    if wrong:
        raise UserError(f'img_size={wrong[0]} is not a multiple of patch_size={patch}')
    return sides[0] // patch, sides[1] // patch


def _resize_patches(kernel: Tensor, size: int) -> Tensor:
    from timm.layers import resample_patch_embed

    return resample_patch_embed(kernel, [size, size])


def _resize_positions(positions: Tensor, old: Grid, new: Grid) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    if old == new:
        return positions
    smaller = new[0] < old[0] or new[1] < old[1]
    return resample_abs_pos_embed(positions, list(new), list(old), antialias=smaller)


def positions_in(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the absolute position embeddings, if there are any."""
    return _find(weights, _POSITIONS)


def _find(weights: Mapping[str, Tensor], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in weights), None)
