"""Token relations of attention heads, and their distance for every pair of heads.

Values are in fp32, or fp64 where the input is.

No tensor of one map for each pair of heads is ever built: of two maps, only the inner
product depends on both, so all pairs together are one matrix product.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def relation_logits(x: Tensor, y: Tensor) -> Tensor:
    """Scaled inner products of all tokens, the relation before its softmax.

    Source: MIM-HD Eq. 1, TinyMIM Eq. 3-4; with x = queries and y = keys, its softmax is
    the block's attention map.

    Args:
        x: ``(B, M, N, d)``: M heads, N tokens.
        y: The same shape.

    Returns:
        ``(B, M, N, N)`` in fp32, divided by ``sqrt(d)``; softmax goes over the last
        axis.
    """
    with full_precision(x):
        x, y = widen(x), widen(y)
        # scaling the smaller side spares a pass over N x N
        return (x * x.shape[-1] ** -0.5) @ y.transpose(-2, -1)


def relation_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of every student head to every teacher head.

    Source: the distance of MIM-HD Eq. 7, direction and row mean as in TinyMIM Eq. 5 and
    9. It is the cross-entropy minus the teacher's entropy. The entropy has no gradient
    to the student, but one to the weights of the pairs, so it must stay in.

    Args:
        student_logits: ``(B, M2, N, N)``.
        teacher_logits: ``(B, M1, N, N)``, taken as constant.

    Returns:
        ``(B, M2, M1)`` in fp32 and in nats: sum over keys, mean over query rows.
    """
    with full_precision(student_logits):
        teacher = _teacher_maps(teacher_logits)
        cross_entropy = _cross_entropy(student_logits, teacher)
        return cross_entropy - _row_entropy(teacher)[:, None]


def relation_cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of every student head under every teacher head.

    The student's gradient equals that of :func:`relation_kl`. Learned weights of pairs
    do not: they lean further to teacher heads of low entropy.

    Args:
        student_logits: ``(B, M2, N, N)``.
        teacher_logits: ``(B, M1, N, N)``, taken as constant.

    Returns:
        ``(B, M2, M1)`` in fp32 and in nats: sum over keys, mean over query rows.
    """
    with full_precision(student_logits):
        return _cross_entropy(student_logits, _teacher_maps(teacher_logits))


def relation_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of the softmaxed maps, for every pair of heads.

    Source: the distance of MIM-HD's ablation (Sec. 4.4). Maps have rows of sum 1, so
    values are of the order of ``1 / N**2``: far smaller than the KL at equal weight.

    Args:
        student_logits: ``(B, M2, N, N)``.
        teacher_logits: ``(B, M1, N, N)``, taken as constant.

    Returns:
        ``(B, M2, M1)`` in fp32: mean over all N * N entries.
    """
    with full_precision(student_logits):
        teacher = _teacher_maps(teacher_logits).flatten(2)
        student = widen(student_logits).softmax(-1).flatten(2)
        cross = student @ teacher.transpose(1, 2)
        total = _squares(student)[:, :, None] - 2 * cross + _squares(teacher)[:, None]
        return total / student.shape[-1]


@torch.no_grad()
def relation_entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the softmaxed rows of each head, without gradient.

    Args:
        logits: ``(B, M, N, N)``.

    Returns:
        ``(B, M)`` in fp32 and in nats: log N for a uniform map, 0 for a one-hot one.
    """
    with full_precision(logits):
        return _row_entropy(_teacher_maps(logits))


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Autocast switched off on the device of ``tensor``.

    A KL is a small difference of large numbers: bfloat16 operands put it 3 % off.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def widen(tensor: Tensor) -> Tensor:
    """In fp32 what is of less precision; fp64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def _teacher_maps(logits: Tensor) -> Tensor:
    return widen(logits).softmax(-1)


@torch.no_grad()
def _row_entropy(maps: Tensor) -> Tensor:
    """``(B, M, N, N)`` -> ``(B, M)``; 0 log 0 counts as 0."""
    return torch.special.entr(maps).sum((-2, -1)) / maps.shape[-2]


def _cross_entropy(student_logits: Tensor, teacher: Tensor) -> Tensor:
    """``(B, M2, N, N)`` logits and ``(B, M1, N, N)`` maps -> ``(B, M2, M1)``."""
    # finite where softmax would underflow and its logarithm be infinite
    student = widen(student_logits).log_softmax(-1).flatten(2)
    return student @ teacher.flatten(2).transpose(1, 2) / -teacher.shape[-2]


def _squares(maps: Tensor) -> Tensor:
    """Sum of squares of each row of ``(B, M, K)``, without a temporary of its size."""
    return torch.linalg.vector_norm(maps, dim=-1).square()
