"""What the patches of an image attend to, in the block a teacher's targets are from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medic_mm.models.teachers import CachedTeacher
from medic_mm.models.vit.qkv import QKV


@torch.no_grad()
def patch_attention(
    teacher: nn.Module, images: Tensor, mean: Tensor, std: Tensor
) -> tuple[Tensor, tuple[int, int]]:
    """Attention between patches, mean of the heads, as evolved masks take it.

    A ``CachedTeacher`` is asked for the teacher behind it. Of a teacher that returns
    queries, keys and values, the attention is computed from them.

    Args:
        teacher: The teacher, with its weights.
        images: ``(B, 3, H, W)``, normalised by the student's preprocessor.
        mean: The preprocessor's channel means.
        std: The preprocessor's standard deviations.

    Returns:
        float32 ``(B, L, L)`` on the CPU, row = the patch that looks, softmaxed over all
        tokens; and the rows and columns of patches, whose product is L.

    Raises:
        ValueError: for a teacher whose attention cannot be read.
    """
    if isinstance(teacher, CachedTeacher):
        teacher = teacher.teacher
    relations = hasattr(teacher, 'attention_of')
    out = teacher(images, mean, std, attention=not relations)
    attention = _from_qkv(out) if isinstance(out, QKV) else out.attention
    if attention is None:
        raise ValueError(f'attention cannot be read from {type(teacher).__name__}')
    return attention.float().cpu(), teacher.native_grid


def _from_qkv(qkv: QKV) -> Tensor:
    """Softmax over all tokens, then patches alone: ``(B, L, L)``."""
    scale = qkv.query.shape[-1] ** -0.5
    logits = qkv.query.float() @ qkv.key.float().mT * scale
    return logits.softmax(-1).mean(1)[:, 1:, 1:]
