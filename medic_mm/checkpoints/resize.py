"""Weights for another image size or another patch size."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

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
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fit weights to images or patches of another size.

    Position embeddings are interpolated (bicubic; the class token's is kept): enlarged
    they are what mmpretrain, mmseg and the official MAE make of them on loading, shrunk
    they are smoothed as well, as timm does. The patch embedding is resized by the
    pseudo-inverse of the interpolation of images (FlexiViT, arXiv 2212.08013): with
    larger patches on images enlarged as much, the tokens stay the same. Both are timm's
    functions.

    Args:
        weights: In any layout but ``'open_clip'``, with square patches and images.
        img_size: Pixels a side; None keeps that of the weights.
        patch_size: Pixels a side; None keeps it.

    Returns:
        The weights, and names left out, each with a reason: a decoder, where the
        patches that it predicts have another size now.

    Raises:
        ValueError: for weights without patch embedding or absolute positions, with
            relative ones, or a size that does not divide.
    """
    if img_size is None and patch_size is None:
        return dict(weights), {}
    patches = _find(weights, _PATCHES)
    positions = _find(weights, _POSITIONS)
    relative = [name for name in weights if 'relative_position' in name]
    if patches is None or positions is None or relative:
        problem = relative[0] if relative else 'no patch or position embedding'
        raise ValueError(
            f'img_size={img_size}, patch_size={patch_size}: the weights cannot be '
            f'resized ({problem}); only absolute position embeddings can'
        )
    old_patch = weights[patches].shape[-1]
    old_side = _side(positions, weights[positions])
    new_patch = patch_size or old_patch
    new_img = img_size or old_side * old_patch
    if new_patch < 1 or new_img < 1 or new_img % new_patch:
        raise ValueError(
            f'img_size={new_img} is not a multiple of patch_size={new_patch}'
        )
    resized = dict(weights)
    left_out: dict[str, str] = {}
    if new_patch != old_patch:
        reason = f'it predicts patches of {old_patch} pixels, not of {new_patch}'
        left_out = {name: reason for name in weights if name.startswith(_DECODER)}
        resized = {k: v for k, v in weights.items() if k not in left_out}
        resized[patches] = _resize_patches(weights[patches], new_patch)
    for name in (*_POSITIONS, *_DECODER_POSITIONS):
        if name in resized:
            resized[name] = _resize_positions(name, resized[name], new_img // new_patch)
    return resized, left_out


def _resize_patches(kernel: Tensor, size: int) -> Tensor:
    from timm.layers import resample_patch_embed

    return resample_patch_embed(kernel, [size, size])


def _resize_positions(name: str, positions: Tensor, side: int) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    old = _side(name, positions)
    if old == side:
        return positions
    return resample_abs_pos_embed(
        positions, [side, side], [old, old], antialias=side < old
    )


def _side(name: str, positions: Tensor) -> int:
    """Patches a side; one of the tokens is the class token."""
    count = positions.shape[1] - 1
    side = math.isqrt(max(count, 0))
    if not side or side * side != count:
        raise ValueError(
            f'{name} has {positions.shape[1]} tokens, which are no class token and a '
            'square of patches'
        )
    return side


def _find(weights: Mapping[str, Tensor], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in weights), None)
