"""One-to-one matching: student head m learns teacher head m."""

from __future__ import annotations

from medic_mm.errors import UserError
from medic_mm.models.losses import relation_logits
from medic_mm.models.mimhd.matching import (
    Distance,
    HeadMatching,
    Matched,
    Sides,
    constant_logits,
)


def one_to_one(student: Sides, teacher: Sides, distance: Distance) -> Matched:
    """Match heads in order; both sides have the same number of them."""
    logits = relation_logits(*student)
    distances = distance(logits, constant_logits(teacher))
    loss = distances.diagonal(dim1=1, dim2=2).mean()
    return Matched(loss, None, logits.detach())


class OneToOneMatching(HeadMatching):
    """Heads in order, for a student block with as many heads as the teacher's.

    TinyMIM gives the student's last block the teacher's number of heads for it (the
    adaptive block, ``block_heads`` of ``RelationViT``). Source: TinyMIM Sec. 3.2,
    MIM-HD Fig. 2c.

    Args:
        student_heads: Heads of the student's distilled block.
        teacher_heads: Heads of the teacher's.

    Raises:
        UserError: where the two differ.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__(student_heads, teacher_heads)
        if student_heads != teacher_heads:
            raise UserError(
                f'OneToOneMatching needs equal numbers of heads, but '
                f'student_heads={student_heads} and teacher_heads={teacher_heads}: '
                f"give the student's distilled block {teacher_heads} heads, or use "
                'another matching'
            )

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.forward`."""
        return one_to_one(student, teacher, distance)
