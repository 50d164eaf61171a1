"""Attention of ViTs: from queries and keys, and of the blocks of a student."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from mmpretrain.models.utils import BEiTAttention, MultiheadAttention
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.models.vit.qkv import split_qkv
from medic_mm.randomness import eval_mode


def attention_maps(query: Tensor, key: Tensor) -> Tensor:
    """Scaled dot-product attention: ``(.., n, d)``, ``(.., N, d)`` -> ``(.., n, N)``.

    Softmaxed in float32 over the N tokens.
    """
    scale = query.shape[-1] ** -0.5
    return (query * scale @ key.mT).softmax(-1, dtype=torch.float32)


def attention_over_heads(query: Tensor, key: Tensor) -> Tensor:
    """Maps summed over heads: ``(B, M, N, d)`` each -> float32 ``(B, N, N)``.

    Computed head by head, so that memory holds ``(B, N, N)`` and not ``(B, M, N, N)``.
    """
    heads = zip(query.unbind(1), key.unbind(1), strict=True)
    total = attention_maps(*next(heads))
    for one in heads:
        total.add_(attention_maps(*one))
    return total


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

    @classmethod
    def from_rows(
        cls,
        rows: Tensor,
        grid: Sequence[int],
        owner: str,
        block: int,
        mean_of: int | None = None,
    ) -> ClassAttention:
        """Weights on patches ``(B, M, L)`` as maps of ``grid``."""
        weights = rows.float().cpu().unflatten(-1, tuple(grid))
        return cls(weights, owner, block, mean_of)

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


@contextlib.contextmanager
def recorded_outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what ``module`` returns while the context is open."""
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, args, out: outputs.append(out))
    try:
        yield outputs
    finally:
        hook.remove()


def has_readable_attention(backbone: nn.Module) -> bool:
    """Whether a backbone is a plain ViT of mmpretrain with a class token."""
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
        UserError: for anything but a plain ViT with a class token.
    """
    if not has_readable_attention(backbone):
        raise UserError(
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


def choose_block(backbone: nn.Module, block: int | None = None) -> int:
    """Number of the block to read, from 1; the last one by default.

    Raises:
        UserError: where the backbone has no such block, or no blocks of a plain ViT
            with a class token, from which attention could be read.
    """
    name = type(backbone).__name__
    if not has_readable_attention(backbone):
        raise UserError(
            f'attention of a class token cannot be read from {name}: it takes a plain '
            "ViT with a class token, such as medic_mm's MaskedViT and RelationViT or "
            "mmpretrain's VisionTransformer, MAEViT and BEiTViT"
        )
    layers: Any = backbone.layers
    number = len(layers) if block is None else block
    if not 1 <= number <= len(layers):
        raise UserError(
            f'block={block} is out of range: {name} has blocks 1 to {len(layers)}'
        )
    return number


@torch.no_grad()
def student_attention(
    backbone: nn.Module, images: Tensor, block: int | None = None
) -> ClassAttention:
    """Attention of a backbone's class token, head by head, on whole images.

    The backbone should be in eval mode. One that masks is told not to.

    Args:
        backbone: A ViT of this package or of mmpretrain.
        images: Normalised images ``(B, 3, H, W)``.
        block: Number of the block, from 1. Default: the last.

    Raises:
        UserError: as :func:`choose_block`.
    """
    number = choose_block(backbone, block)
    layers: Any = backbone.layers
    attn = layers[number - 1].attn
    biased = isinstance(attn, BEiTAttention)  # as in _read
    masks = 'mask' in inspect.signature(backbone.forward).parameters
    with (
        recorded_outputs(attn.attn_drop if biased else attn.qkv) as outputs,
        recorded_outputs(cast(nn.Module, backbone.patch_embed)) as embedded,
    ):
        backbone(images, **({'mask': None} if masks else {}))
    if biased:
        rows = outputs[0][:, :, 0]
    else:
        qkv = split_qkv(outputs[0].float(), attn.num_heads)
        rows = attention_maps(qkv.query[:, :, :1], qkv.key)[:, :, 0]
    first = getattr(backbone, 'num_extra_tokens', 1)
    return ClassAttention.from_rows(
        rows[:, :, first:], embedded[0][1], 'student', number
    )


@contextlib.contextmanager
def _read(attn: nn.Module, add: Callable[[Tensor], None]) -> Iterator[None]:
    """Hand a block's map to ``add`` while it runs, so that none is kept."""
    # BEiT's attention, with its position biases, hands its maps to its dropout
    biased = isinstance(attn, BEiTAttention)
    source = cast(nn.Module, attn.attn_drop if biased else attn.qkv)

    def hook(_: nn.Module, inputs: Any, out: Tensor) -> None:
        if biased:
            add(out.float().sum(1))
        else:
            qkv = split_qkv(out, cast(int, attn.num_heads))
            add(attention_over_heads(qkv.query, qkv.key))

    handle = source.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
