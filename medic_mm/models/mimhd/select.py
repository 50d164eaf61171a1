"""Select matching: one teacher head for each student head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.losses import relation_entropy, relation_logits
from medic_mm.models.mimhd.matching import (
    Distance,
    HeadMatching,
    Matched,
    Sides,
    constant_logits,
    weighted_loss,
)

SHARPEST = 'sharpest'


class SelectMatching(HeadMatching):
    """Each student head learns one teacher head, chosen by hand or by score.

    The paper's Fig. 2b selects the head of most influence on a downstream task, which
    needs labels. Without them, either name heads (for example after looking at the
    attention pictures), or score them by the entropy of their maps: a diffuse map says
    little.

    Args:
        student_heads: Heads of the student's distilled block.
        teacher_heads: Heads of the teacher's.
        heads: Teacher heads counted from 0: one for each student head in order, or one
            number for all student heads. ``'sharpest'`` (default): in each batch and
            relation the ``student_heads`` teacher heads of lowest mean entropy, in the
            teacher's order, so that near ties do not reshuffle the pairs.

    Raises:
        UserError: for another word, a wrong number of heads, a head that the teacher
            has not, or ``'sharpest'`` with more student than teacher heads.
    """

    def __init__(
        self,
        student_heads: int,
        teacher_heads: int,
        heads: int | Sequence[int] | str = SHARPEST,
    ) -> None:
        super().__init__(student_heads, teacher_heads)
        chosen = None
        if isinstance(heads, str):
            self._check_scored(heads)
        else:
            chosen = torch.tensor(self._check_chosen(heads))
        # a buffer only to be where the model is; the config holds it
        self.register_buffer('chosen', chosen, persistent=False)

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.forward`."""
        logits, targets = relation_logits(*student), constant_logits(teacher)
        chosen = self.chosen
        if chosen is None:
            chosen = sharpest_heads(targets, self.student_heads)
        distances = distance(logits, targets)
        weights = F.one_hot(chosen, self.teacher_heads).to(distances.dtype)
        weights = weights.expand_as(distances)
        loss = weighted_loss(distances, weights)
        return Matched(loss, weights, logits.detach())

    def _check_scored(self, heads: str) -> None:
        if heads != SHARPEST:
            raise UserError(
                f'heads={heads!r} of SelectMatching is unknown: give teacher heads, or '
                f'{SHARPEST!r}'
            )
        if self.student_heads > self.teacher_heads:
            raise UserError(
                f'heads={SHARPEST!r} of SelectMatching needs a teacher head for each '
                f'student head, but student_heads={self.student_heads} and '
                f'teacher_heads={self.teacher_heads}: give the teacher heads by number'
            )

    def _check_chosen(self, heads: int | Sequence[int]) -> tuple[int, ...]:
        several = isinstance(heads, Iterable)
        chosen = tuple(heads) if several else (heads,) * self.student_heads
        if len(chosen) != self.student_heads:
            raise UserError(
                f'heads of SelectMatching names {len(chosen)} teacher heads, but the '
                f'student has {self.student_heads} heads: name one for each'
            )
        last = self.teacher_heads - 1
        for head in chosen:
            require_number(self, 'heads', head, low=0, high=last, integer=True)
        return chosen


def sharpest_heads(logits: Tensor, count: int) -> Tensor:
    """Indices ``(count,)`` of the heads of lowest mean entropy, ascending.

    Args:
        logits: ``(B, M, N, N)``.
        count: At most M.
    """
    entropy = relation_entropy(logits).mean(0)
    return entropy.topk(count, largest=False).indices.sort().values
