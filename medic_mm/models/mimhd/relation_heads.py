"""Relation-head matching: both sides split anew into a common number of heads."""

from __future__ import annotations

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.mimhd.matching import Distance, HeadMatching, Matched, Sides
from medic_mm.models.mimhd.one_to_one import one_to_one
from medic_mm.models.vit.qkv import resplit_heads


class RelationHeadMatching(HeadMatching):
    """Join the heads of each side, split them into ``num_heads``, match in order.

    Needs no parameters and no equal numbers of heads; the relation heads are not the
    attention heads of the network. ``Matched.student_logits`` is of relation heads.
    Source: MiniLMv2 (https://arxiv.org/abs/2012.15828).

    Args:
        student_heads: Heads of the student's distilled block.
        teacher_heads: Heads of the teacher's.
        num_heads: Number of relation heads; must divide the width of both blocks.
            Default: the teacher's number of heads.

    Raises:
        UserError: for fewer than one relation head, or, with the first batch, a number
            that does not divide a block's width (:meth:`check_widths` tells before).
    """

    def __init__(
        self, student_heads: int, teacher_heads: int, num_heads: int | None = None
    ) -> None:
        super().__init__(student_heads, teacher_heads)
        if num_heads is not None:
            require_number(self, 'num_heads', num_heads, low=1, integer=True)
        self.num_heads = teacher_heads if num_heads is None else num_heads

    @property
    def matched_heads(self) -> int:
        """The relation heads."""
        return self.num_heads

    def check_widths(self, student: int, teacher: int) -> None:
        """See :meth:`HeadMatching.check_widths`: the heads must divide both."""
        for side, width in (('student', student), ('teacher', teacher)):
            if width % self.num_heads:
                raise UserError(
                    f'num_heads={self.num_heads} of RelationHeadMatching does not '
                    f'divide the width {width} of the {side}: choose a number that '
                    f'divides {student} and {teacher}'
                )

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.forward`."""
        first, second = (
            tuple(resplit_heads(features, self.num_heads) for features in side)
            for side in (student, teacher)
        )
        return one_to_one(first, second, distance)
