"""Average matching: one relation map a side, the mean over its heads."""

from __future__ import annotations

import math

from torch import Tensor

from medic_mm.models.losses import relation_logits
from medic_mm.models.mimhd.matching import (
    Distance,
    HeadMatching,
    Matched,
    Sides,
    constant_logits,
)


class AverageMatching(HeadMatching):
    """The student's mean softmaxed map learns the teacher's mean softmaxed map.

    Single heads stay free as long as their mean fits; ``AdaptiveMatching`` with
    ``uniform=True`` pulls every single head to all teacher heads alike instead. Source:
    MIM-HD Fig. 2a.

    Args:
        student_heads: Heads of the student's distilled block.
        teacher_heads: Heads of the teacher's.
    """

    @property
    def matched_heads(self) -> int:
        """One merged head."""
        return 1

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.forward`."""
        logits = relation_logits(*student)
        loss = distance(merge_heads(logits), merge_heads(constant_logits(teacher)))
        return Matched(loss.mean(), None, logits.detach())


def merge_heads(logits: Tensor) -> Tensor:
    """Logits whose softmax is the mean over heads of the softmaxed maps.

    ``(B, M, N, N)`` -> ``(B, 1, N, N)``, without taking the logarithm of a softmax.
    """
    merged = logits.log_softmax(-1).logsumexp(1, keepdim=True)
    return merged - math.log(logits.shape[1])
