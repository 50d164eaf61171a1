"""Features of images from a timm Vision Transformer."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, cat

POOLS = ('cls', 'mean', 'tokens')


def check_request(vit: VisionTransformer, layer: int | None, pool: str) -> None:
    """Refuse features that a network does not have.

    Raises:
        ValueError: names the setting and what would be right.
    """
    depth = len(vit.blocks)
    if layer is not None and not 1 <= layer <= depth:
        raise ValueError(f'layer={layer} is out of range: the network has 1 to {depth}')
    if pool not in POOLS:
        raise ValueError(f'pool={pool!r} is unknown: use one of {", ".join(POOLS)}')
    if pool == 'cls' and not vit.has_class_token:
        raise ValueError("pool='cls' needs a class token, which the network lacks")


def pooled_tokens(
    vit: VisionTransformer, images: Tensor, layer: int | None = None, pool: str = 'cls'
) -> Tensor:
    """Encode normalised images ``(B, 3, H, W)``.

    Args:
        vit: The network, in eval mode.
        images: As its ``transforms`` prepare them.
        layer: A block, counted from 1: its output as it is, without any norm; nothing
            after it is run. Default: the last block's output after the final norm.
        pool: ``'cls'`` (class token), ``'mean'`` (mean of the patch tokens), both
            ``(B, D)``, or ``'tokens'`` (all, class token first, ``(B, 1 + L, D)``).
    """
    if layer is None:
        tokens = vit.forward_features(images)
    else:
        patches, prefix = vit.forward_intermediates(
            images,
            indices=[layer - 1],
            return_prefix_tokens=True,
            norm=False,
            stop_early=True,
            output_fmt='NLC',
            intermediates_only=True,
        )[0]
        # (B, P, D) + (B, L, D) -> (B, P + L, D)
        tokens = patches if prefix is None else cat((prefix, patches), 1)
    if pool == 'cls':
        return tokens[:, 0]
    return tokens[:, vit.num_prefix_tokens :].mean(1) if pool == 'mean' else tokens
