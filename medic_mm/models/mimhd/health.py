"""Numbers that tell whether a matching has collapsed; a low loss does not tell."""

from __future__ import annotations

import torch
from torch import Tensor

from medic_mm.models.losses.relation import full_precision, widen


@torch.no_grad()
def weight_entropy(weights: Tensor) -> Tensor:
    """Mean entropy of the rows of W, ``(B, M2, M1)`` -> scalar, in nats.

    log M1 where every student head learns from all teacher heads alike, 0 where each
    learns from a single one.
    """
    return torch.special.entr(weights).sum(-1).mean()


@torch.no_grad()
def used_heads(weights: Tensor) -> Tensor:
    """Effective number of teacher heads in use, ``(B, M2, M1)`` -> scalar in 1..M1.

    The exponential of the entropy of W's mean over batch and student heads.
    """
    return torch.special.entr(weights.mean((0, 1))).sum().exp()


@torch.no_grad()
def head_similarity(logits: Tensor) -> Tensor:
    """Mean cosine of the softmaxed maps of any two heads, ``(B, M, N, N)`` -> scalar.

    1 where all heads of an image are alike. Maps have no negative entries, so unlike
    heads reach 0 only where they share no pair of tokens. At least two heads.
    """
    with full_precision(logits):
        maps = widen(logits).softmax(-1).flatten(2)
        products = maps @ maps.transpose(1, 2)
        norms = products.diagonal(dim1=1, dim2=2).sqrt()
        cosines = products / (norms[:, :, None] * norms[:, None])
        heads = logits.shape[1]
        # the diagonal is 1 for each head
        return ((cosines.sum((1, 2)) - heads) / (heads * (heads - 1))).mean()
