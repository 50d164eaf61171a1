"""Distances of the student's tokens to the teacher's, layer-normalised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require_number


def normalise_target(target: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer-normalise teacher tokens without learned scale and shift.

    ``(..., D)`` -> ``(..., D)`` in fp32, or fp64 where the tokens are. The released
    MEDiC code divides by the unbiased variance instead; at D = 768 the two differ by
    0.07 %.
    """
    wide = target.to(torch.promote_types(target.dtype, torch.float32))
    return F.layer_norm(wide, target.shape[-1:], eps=eps)


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
    return F.smooth_l1_loss(*_compared(prediction, target), beta=beta)


def cls_alignment(prediction: Tensor, target: Tensor, tau: float = 1.0) -> Tensor:
    """``(1 - cos(prediction, layer-normalised target)) / tau``, mean over the batch.

    Source: MEDiC's CLS term. ``tau`` only scales the weight: the released YAML files
    use 0.1, the released tests 1.0, and the paper's value is not known.

    Args:
        prediction: ``(B, D)``.
        target: Teacher class tokens ``(B, D)`` as the teacher gives them.
        tau: Divisor, > 0.

    Returns:
        A scalar in 0..2/tau, in fp32, or fp64 where the input is.
    """
    cosine = F.cosine_similarity(*_compared(prediction, target), dim=-1)
    return (1 - cosine).mean() / tau


@torch.no_grad()
def mean_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean cosine of tokens and layer-normalised teacher tokens, only to be logged."""
    return F.cosine_similarity(*_compared(prediction, target), dim=-1).mean()


class TokenDistillationLoss(nn.Module):
    """:func:`token_distillation` as a component; the head applies the weight.

    Args:
        beta: Where the loss turns from quadratic to linear.

    Raises:
        UserError: for ``beta`` that is not a number above 0.
    """

    looks_at = 'patch_tokens'

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        require_number(self, 'beta', beta, above=0)
        self.beta = beta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Unweighted loss, a scalar."""
        return token_distillation(prediction, target, self.beta)


class ClsAlignmentLoss(nn.Module):
    """:func:`cls_alignment` as a component; the head applies the weight.

    Args:
        tau: Divisor of the loss.

    Raises:
        UserError: for ``tau`` that is not a number above 0.
    """

    looks_at = 'class_tokens'

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        require_number(self, 'tau', tau, above=0)
        self.tau = tau

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Unweighted loss, a scalar."""
        return cls_alignment(prediction, target, self.tau)


def _compared(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in fp32, or fp64 where one is; the target normalised."""
    target = normalise_target(target)
    wide = torch.promote_types(prediction.dtype, target.dtype)
    return prediction.to(wide), target
