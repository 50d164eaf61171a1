"""Patch tokens of a student and of its teacher."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from medic_mm.models.teachers import FrozenTeacher
from medic_mm.models.vit.attention import recorded_outputs
from medic_mm.models.vit.qkv import QKV


@dataclass(frozen=True)
class PatchTokens:
    """Tokens of the patches of some images.

    Attributes:
        values: float32 ``(B, L, D)`` on the CPU, row-major.
        grid: Rows and columns of patches; L = rows * columns.
        what: Where they are from, such as ``'block 12'``.
    """

    values: Tensor
    grid: tuple[int, int]
    what: str


@torch.no_grad()
def student_tokens(
    backbone: nn.Module, images: Tensor, block: int | None = None
) -> PatchTokens:
    """Output of a block of a backbone on whole images; of the last, after its norm.

    The backbone should be in eval mode. One that masks is told not to.

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

    Args:
        teacher: The teacher, with its weights.
        images: ``(B, 3, H, W)``, normalised by the student's preprocessor.
        mean: The preprocessor's channel means.
        std: The preprocessor's standard deviations.
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


def join_tokens(parts: list[PatchTokens]) -> PatchTokens:
    """One object for all batches of the same network."""
    values = torch.cat([part.values for part in parts])
    return PatchTokens(values, parts[0].grid, parts[0].what)


def _block_number(backbone: nn.Module, block: int | None) -> int:
    name = type(backbone).__name__
    layers: Any = getattr(backbone, 'layers', None) or ()
    # a ResNet of the host has no blocks in a row, a Swin no tokens of patches
    if not len(layers) or not hasattr(backbone, 'pos_embed'):
        raise ValueError(
            f'patch tokens cannot be read from {name}: it takes a plain ViT, such as '
            "medic_mm's MaskedViT and RelationViT or mmpretrain's VisionTransformer, "
            'MAEViT and BEiTViT'
        )
    number = len(layers) if block is None else block
    if not 1 <= number <= len(layers):
        raise ValueError(
            f'block={block} is out of range: {name} has blocks 1 to {len(layers)}'
        )
    return number
