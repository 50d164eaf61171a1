"""Descriptors of a block's heads: how alike they are, from which weights are made.

Each turns one relation into the similarities ``S (B, M, M)`` of its heads (MIM-HD Eq. 4
and the text around it). The paper describes a head by the mean of its map. Every row of
a softmaxed map sums to 1, so that mean is 1/N for every head, image and step: read
literally, the weights cannot depend on the student. The other readings here do.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from medic_mm.models.losses import relation_logits
from medic_mm.models.losses.relation import widen


def mean_logit(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the mean of their logits, before the softmax.

    The mean of all inner products is the inner product of the means, so no N x N map is
    needed.

    Args:
        x: ``(B, M, N, d)``.
        y: Likewise.

    Returns:
        ``(B, M, M)``, of rank 1.
    """
    mean = (widen(x).mean(2) * widen(y).mean(2)).sum(-1) * x.shape[-1] ** -0.5
    return _outer(mean)


def received(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the attention that each token receives, the mean over query rows.

    Args:
        x: ``(B, M, N, d)``.
        y: Likewise.

    Returns:
        ``(B, M, M)``: inner products, times N so that uniform maps give 1.
    """
    tokens = _maps(x, y).mean(2)
    return tokens @ tokens.transpose(1, 2) * x.shape[2]


def gram(x: Tensor, y: Tensor) -> Tensor:
    """Heads by their whole softmaxed maps, as SemCKD does with samples.

    Args:
        x: ``(B, M, N, d)``.
        y: Likewise.

    Returns:
        ``(B, M, M)``: inner products of the maps; uniform maps give 1.
    """
    maps = _maps(x, y).flatten(2)
    return maps @ maps.transpose(1, 2)


def literal(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the mean of their softmaxed maps: a constant, kept to show just that.

    Args:
        x: ``(B, M, N, d)``.
        y: Likewise.

    Returns:
        ``(B, M, M)``: ``1 / N**2`` everywhere, whatever the features.
    """
    return _outer(_maps(x, y).mean((2, 3)))


def _maps(x: Tensor, y: Tensor) -> Tensor:
    return relation_logits(x, y).softmax(-1)


def _outer(values: Tensor) -> Tensor:
    """``(B, M)`` -> ``(B, M, M)``."""
    return values[:, :, None] * values[:, None]


DESCRIPTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'mean_logit': mean_logit,
    'received': received,
    'gram': gram,
    'literal': literal,
}
