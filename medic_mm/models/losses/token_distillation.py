"""Patch-token distillation: smooth L1 to layer-normalised teacher tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.models.losses.relation import widen


def normalise_target(target: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer-normalise teacher tokens without learned scale and shift.

    ``(..., D)`` -> ``(..., D)`` in fp32, or fp64 where the tokens are. The released
    MEDiC code divides by the unbiased variance instead; at D = 768 the two differ by
    0.07 %.
    """
    return F.layer_norm(widen(target), target.shape[-1:], eps=eps)


def token_distillation(prediction: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 between predictions and layer-normalised teacher tokens.

    Source: MaskDistill (https://arxiv.org/abs/2210.10615), used by MEDiC; beta 1.0 as
    in the released MEDiC code.

    Args:
        prediction: ``(B, N, D)``, not normalised.
        target: Teacher tokens ``(B, N, D)`` as the teacher gives them.
        beta: Where the loss turns from quadratic to linear, > 0.

    Returns:
        The mean over all values, a scalar in fp32, or fp64 where the input is.
    """
    return F.smooth_l1_loss(widen(prediction), normalise_target(target), beta=beta)


class TokenDistillationLoss(nn.Module):
    """:func:`token_distillation` as a component; the head applies the weight.

    Args:
        beta: Where the loss turns from quadratic to linear.

    Raises:
        UserError: for ``beta`` that is not a number above 0.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        require_number(self, 'beta', beta, above=0)
        self.beta = beta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Unweighted loss, a scalar."""
        return token_distillation(prediction, target, self.beta)
