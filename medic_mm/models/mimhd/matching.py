"""What every head matching shares: its call, its result, its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.losses import relation_logits

Distance = Callable[[Tensor, Tensor], Tensor]
Sides = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Matched:
    """What a matching makes of one relation.

    Attributes:
        loss: Scalar: mean over batch, query rows and student heads, sum over teacher
            heads by their weights.
        weights: ``(B, M2, M1)`` without gradient: the weight of each teacher head for
            each student head, rows sum to 1. None where the strategy has no choice.
        student_logits: ``(B, M, N, N)`` without gradient, of the student's heads.
    """

    loss: Tensor
    weights: Tensor | None
    student_logits: Tensor


class HeadMatching(nn.Module):
    """Base of the strategies that say which student head learns which teacher head.

    A subclass implements :meth:`match`.

    Args:
        student_heads: Number M2 of heads of the student's distilled block.
        teacher_heads: Number M1 of heads of the teacher's.

    Raises:
        UserError: for fewer than one head, or what is not a whole number.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__()
        for side, heads in (('student', student_heads), ('teacher', teacher_heads)):
            require_number(self, f'{side}_heads', heads, low=1, integer=True)
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads

    @property
    def matched_heads(self) -> int:
        """How many student heads the mean of the loss runs over."""
        return self.student_heads

    def check_widths(self, student: int, teacher: int) -> None:
        """Refuse widths of the two blocks that the strategy cannot work with.

        Raises:
            UserError: says which; most strategies take any width.
        """

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`forward`; the sides have the declared numbers of heads."""
        raise NotImplementedError

    def forward(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """Distance of the student's heads to those teacher heads that they learn from.

        Args:
            student: Both sides of the relation, ``(B, M2, N, d)`` each.
            teacher: Likewise ``(B, M1, N, d')``, taken as constant.
            distance: ``relation_kl`` or a function of the same shapes.

        Raises:
            UserError: where the numbers of heads or tokens are not as declared.
        """
        self._check_side('student', student[0], self.student_heads)
        self._check_side('teacher', teacher[0], self.teacher_heads)
        if student[0].shape[2] != teacher[0].shape[2]:
            raise UserError(
                f'the student has {student[0].shape[2]} tokens and the teacher '
                f'{teacher[0].shape[2]}: relations need the same grid on both sides'
            )
        return self.match(student, teacher, distance)

    def _check_side(self, side: str, features: Tensor, declared: int) -> None:
        if features.shape[1] != declared:
            raise UserError(
                f'{side}_heads={declared} of {type(self).__name__}, but the distilled '
                f'block of the {side} has {features.shape[1]} heads'
            )


@torch.no_grad()
def constant_logits(sides: Sides) -> Tensor:
    """Relation logits that take no gradient: the teacher's."""
    return relation_logits(*sides)


def weighted_loss(distances: Tensor, weights: Tensor) -> Tensor:
    """``(B, M2, M1)`` distances and weights to a scalar.

    Sum over teacher heads, mean over student heads and batch (MIM-HD Eq. 7 divided by
    the number of student heads).
    """
    return (distances * weights).sum(-1).mean()
