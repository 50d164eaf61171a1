"""Global alignment of the student's class token to the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.models.losses.relation import widen
from medic_mm.models.losses.token_distillation import normalise_target


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
    cosine = F.cosine_similarity(widen(prediction), normalise_target(target), dim=-1)
    return (1 - cosine).mean() / tau


class ClsAlignmentLoss(nn.Module):
    """:func:`cls_alignment` as a component; the head applies the weight.

    Args:
        tau: Divisor of the loss.

    Raises:
        UserError: for ``tau`` that is not a number above 0.
    """

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        require_number(self, 'tau', tau, above=0)
        self.tau = tau

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Unweighted loss, a scalar."""
        return cls_alignment(prediction, target, self.tau)
