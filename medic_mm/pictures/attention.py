"""What the class token attends to, head by head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from mmpretrain.models.utils import BEiTAttention
from torch import Tensor, nn

from medic_mm.models.teachers import (
    CachedTeacher,
    MAETeacher,
    OpenCLIPTeacher,
    TimmTeacher,
)
from medic_mm.models.teachers.base import recorded_outputs
from medic_mm.models.teachers.open_clip import mean_attention
from medic_mm.models.teachers.timm import explicit_attention
from medic_mm.models.vit.attention import has_readable_attention
from medic_mm.models.vit.qkv import split_qkv


@dataclass(frozen=True)
class ClassAttention:
    """What the class token of one block attends to.

    Attributes:
        weights: ``(B, M, h, w)``, float32 on the CPU: head m's weights on the patch
            grid, softmaxed over all tokens. A map sums to less than 1, since the class
            token (and any other extra token) has its share.
        owner: Whose it is: ``'student'`` or ``'teacher'``.
        block: Number of the block, from 1.
        mean_of: Number of heads that the one map is the mean of; None where each map is
            one head.
    """

    weights: Tensor
    owner: str
    block: int
    mean_of: int | None = None

    @property
    def labels(self) -> list[str]:
        """A name for each map, such as ``'student, head 1 of 12'``."""
        if self.mean_of is not None:
            return [f'{self.owner}, mean of {self.mean_of} heads']
        total = self.weights.shape[1]
        return [f'{self.owner}, head {n} of {total}' for n in range(1, total + 1)]


def join_batches(parts: Sequence[ClassAttention]) -> ClassAttention:
    """One object for all batches of the same network and block."""
    first = parts[0]
    weights = torch.cat([part.weights for part in parts])
    return ClassAttention(weights, first.owner, first.block, first.mean_of)


def choose_block(backbone: nn.Module, block: int | None = None) -> int:
    """Number of the block to read, from 1; the last one by default.

    Raises:
        ValueError: where the backbone has no such block, or no blocks of a plain ViT
            with a class token, from which attention could be read.
    """
    name = type(backbone).__name__
    if not has_readable_attention(backbone):
        raise ValueError(
            f'attention of a class token cannot be read from {name}: it takes a plain '
            "ViT with a class token, such as medic_mm's MaskedViT and RelationViT or "
            "mmpretrain's VisionTransformer, MAEViT and BEiTViT"
        )
    layers: Any = backbone.layers
    number = len(layers) if block is None else block
    if not 1 <= number <= len(layers):
        raise ValueError(
            f'block={block} is out of range: {name} has blocks 1 to {len(layers)}'
        )
    return number


@torch.no_grad()
def student_attention(
    backbone: nn.Module, images: Tensor, block: int | None = None
) -> ClassAttention:
    """Attention of a backbone's class token, on whole images.

    The backbone should be in eval mode. One that masks is told not to.

    Args:
        backbone: A ViT of this package or of mmpretrain.
        images: Normalised images ``(B, 3, H, W)``.
        block: Number of the block, from 1. Default: the last.

    Raises:
        ValueError: as :func:`choose_block`.
    """
    number = choose_block(backbone, block)
    layers: Any = backbone.layers
    attn = layers[number - 1].attn
    # BEiT's attention adds position biases, and hands its softmaxed weights on
    whole = isinstance(attn, BEiTAttention)
    source = attn.attn_drop if whole else attn.qkv
    with (
        recorded_outputs(source) as outputs,
        recorded_outputs(cast(nn.Module, backbone.patch_embed)) as embedded,
    ):
        backbone(images, **_whole_images(backbone))
    rows = outputs[0][:, :, 0] if whole else _class_row(outputs[0], attn.num_heads)
    _, grid = embedded[0]
    first = getattr(backbone, 'num_extra_tokens', 1)
    return _on_grid(rows[:, :, first:], grid, 'student', number)


@torch.no_grad()
def teacher_attention(
    teacher: nn.Module, images: Tensor, mean: Tensor, std: Tensor
) -> ClassAttention:
    """Attention of the class token in the block that a teacher's output is taken from.

    Of ``MAETeacher`` and ``TimmTeacher`` every head; of ``OpenCLIPTeacher`` the mean
    over heads. A ``CachedTeacher`` is asked for the teacher behind it.

    Args:
        teacher: The teacher, with its weights.
        images: ``(B, 3, H, W)``, normalised by the student's preprocessor.
        mean: The preprocessor's channel means.
        std: The preprocessor's standard deviations.

    Raises:
        ValueError: for a teacher whose attention cannot be read.
    """
    if isinstance(teacher, CachedTeacher):
        teacher = teacher.teacher
    if isinstance(teacher, TimmTeacher):
        network: Any = teacher.network
        with explicit_attention(network.blocks[teacher.layer].attn) as weights:
            teacher(images, mean, std)
        rows = weights[0][:, :, 0, network.num_prefix_tokens :]
        return _on_grid(rows, teacher.native_grid, 'teacher', teacher.layer + 1)
    if isinstance(teacher, OpenCLIPTeacher):
        part = teacher.network.transformer.resblocks[teacher.layer]
        with recorded_outputs(part.ln_1) as inputs:
            teacher(images, mean, std)
        rows = mean_attention(part.attn, inputs[0])[:, None, 0, 1:]
        heads = part.attn.num_heads
        return _on_grid(rows, teacher.native_grid, 'teacher', teacher.layer + 1, heads)
    if isinstance(teacher, MAETeacher):
        rows = teacher.attention_of(images, mean, std)
        return _on_grid(rows, teacher.native_grid, 'teacher', teacher.block)
    raise ValueError(
        f'attention cannot be read from {type(teacher).__name__}: it can from '
        'MAETeacher, TimmTeacher and OpenCLIPTeacher of medic_mm'
    )


def _whole_images(backbone: nn.Module) -> dict[str, None]:
    parameters = inspect.signature(backbone.forward).parameters
    return {'mask': None} if 'mask' in parameters else {}


def _class_row(projected: Tensor, num_heads: int) -> Tensor:
    """Softmaxed weights of token 0: ``(B, N, 3 * D)`` -> ``(B, M, N)``."""
    qkv = split_qkv(projected.float(), num_heads)
    scale = qkv.query.shape[-1] ** -0.5
    logits = qkv.query[:, :, :1] @ qkv.key.transpose(-2, -1) * scale
    return logits.softmax(-1)[:, :, 0]


def _on_grid(
    rows: Tensor,
    grid: Sequence[int],
    owner: str,
    block: int,
    mean_of: int | None = None,
) -> ClassAttention:
    """Weights on patches ``(B, M, L)`` as maps."""
    weights = rows.float().cpu().unflatten(-1, tuple(grid))
    return ClassAttention(weights, owner, block, mean_of)
