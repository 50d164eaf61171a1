"""Attention of a whole student: one map per image, all blocks and heads summed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from mmpretrain.models.utils import BEiTAttention, MultiheadAttention
from torch import Tensor, nn

from medic_mm.models.vit.qkv import split_qkv
from medic_mm.randomness import eval_mode


def has_readable_attention(backbone: nn.Module) -> bool:
    """Whether a backbone is a plain ViT of the host with a class token."""
    layers: Any = getattr(backbone, 'layers', None) or ()
    plain = len(layers) > 0 and all(
        isinstance(getattr(layer, 'attn', None), (MultiheadAttention, BEiTAttention))
        for layer in layers
    )
    return plain and getattr(backbone, 'cls_token', None) is not None


def require_readable_attention(backbone: nn.Module, setting: str) -> None:
    """Refuse a backbone whose attention :func:`summed_attention` cannot read.

    Args:
        backbone: The backbone.
        setting: What asks for the attention, for the sentence.

    Raises:
        ValueError: for anything but a plain ViT with a class token.
    """
    if not has_readable_attention(backbone):
        raise ValueError(
            f'{setting} cannot read the attention of {type(backbone).__name__}: take '
            "'medic_mm.MaskedViT' or 'BEiTPretrainViT' as the backbone, or the "
            "teacher's attention"
        )


@torch.no_grad()
def summed_attention(backbone: nn.Module, images: Tensor) -> Tensor:
    """Softmaxed attention between patches, summed over all blocks and heads.

    The backbone runs on whole images in eval mode, so it draws no random numbers; its
    modes are put back afterwards. Position biases of attention count where the
    backbone has them. From the released code of Evolved Part Masking (CVPR 2023).

    Args:
        backbone: A ViT that :func:`require_readable_attention` accepts, whose
            ``forward`` takes ``mask=None``.
        images: Normalised images ``(B, 3, H, W)``.

    Returns:
        float32 ``(B, L, L)``, row = the patch that looks. The class token's row and
        column are dropped after the softmax.
    """
    total: list[Tensor] = []

    def add(weights: Tensor) -> None:
        if total:
            total[0].add_(weights)
        else:
            total.append(weights)

    with contextlib.ExitStack() as stack:
        stack.enter_context(eval_mode(backbone))
        stack.enter_context(_fresh_casts())
        layers: Any = backbone.layers
        for layer in layers:
            stack.enter_context(_read(layer.attn, add))
        backbone(images, mask=None)
    first = int(getattr(backbone, 'num_extra_tokens', 1))
    return total[0][:, first:, first:]


@contextlib.contextmanager
def _read(attn: nn.Module, add: Any) -> Iterator[None]:
    """Hand each block's map to ``add`` while it runs, so that none is kept."""
    if isinstance(attn, BEiTAttention):
        # with its position biases: it hands its softmaxed weights to its dropout

        def hook(_: nn.Module, inputs: Any, weights: Tensor) -> None:
            add(weights.float().sum(1))

        handle = attn.attn_drop.register_forward_hook(hook)
    else:

        def hook(_: nn.Module, inputs: Any, projected: Tensor) -> None:
            add(_over_heads(projected, attn.num_heads))

        handle = attn.qkv.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _over_heads(projected: Tensor, num_heads: int) -> Tensor:
    """Output of a ``qkv`` layer ``(B, N, 3 * D)`` to summed maps ``(B, N, N)``."""
    qkv = split_qkv(projected, num_heads)
    scale = qkv.query.shape[-1] ** -0.5
    # head by head, so that memory holds (B, N, N) and not (B, M, N, N)
    maps = (
        (query * scale @ key.mT).softmax(-1, dtype=torch.float32)
        for query, key in zip(qkv.query.unbind(1), qkv.key.unbind(1), strict=True)
    )
    total = next(maps)
    for weights in maps:
        total.add_(weights)
    return total


@contextlib.contextmanager
def _fresh_casts() -> Iterator[None]:
    """Keep autocast from storing the weights that it casts here.

    Older versions of PyTorch hand these copies, made without gradients, to the pass
    that is trained (pytorch/pytorch issue 112583).
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
