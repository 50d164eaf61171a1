"""Adaptive matching: learned weights of all teacher heads for each student head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.losses import relation_logits
from medic_mm.models.losses.relation import full_precision, widen
from medic_mm.models.mimhd.balance import sinkhorn
from medic_mm.models.mimhd.descriptors import DESCRIPTORS
from medic_mm.models.mimhd.matching import (
    Distance,
    HeadMatching,
    Matched,
    Sides,
    constant_logits,
    weighted_loss,
)


class PerHeadProjection(nn.Module):
    """A perceptron of two layers for each head, to vectors of length 1.

    With one projection for all heads and similarities of rank 1, every student head
    would rank the teacher heads alike. Shape and norm are SemCKD's (``2 * embed_dims``
    hidden units); the norm keeps the weights away from 0 and 1.

    Args:
        num_heads: Number of heads M, also the width of the input.
        embed_dims: Width C of the output.
    """

    def __init__(self, num_heads: int, embed_dims: int) -> None:
        super().__init__()
        hidden = 2 * embed_dims
        self.weight1 = nn.Parameter(torch.empty(num_heads, num_heads, hidden))
        self.bias1 = nn.Parameter(torch.empty(num_heads, hidden))
        self.weight2 = nn.Parameter(torch.empty(num_heads, hidden, embed_dims))
        self.bias2 = nn.Parameter(torch.empty(num_heads, embed_dims))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw each head's layers as ``nn.Linear`` draws its own."""
        for weight, bias in ((self.weight1, self.bias1), (self.weight2, self.bias2)):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, similarities: Tensor) -> Tensor:
        """``(B, M, M)``, row m for head m -> ``(B, M, C)``."""
        hidden = torch.einsum('bmi,mih->bmh', similarities, self.weight1) + self.bias1
        out = torch.einsum('bmh,mhc->bmc', hidden.relu(), self.weight2) + self.bias2
        return F.normalize(out, dim=-1)


class AdaptiveMatching(HeadMatching):
    """Every student head learns from all teacher heads, by weights W of its own.

    Student heads are queries and teacher heads keys of an attention among heads; W is
    its softmax over teacher heads, and the loss itself trains it. That gradient moves
    weight to the teacher heads that are easiest to copy, which are the most diffuse
    ones as long as the student's maps are flat: watch the head's ``entropy_*`` and
    ``used_heads_*``. Unit norm at temperature 1 bounds weights (0.33 at most of 16);
    ``balance='sinkhorn'`` with ``temperature=0.1`` keeps all teacher heads in use.
    Source: MIM-HD Eq. 2-7; SemCKD for what the paper leaves open.

    Args:
        student_heads: Heads M2 of the student's distilled block.
        teacher_heads: Heads M1 of the teacher's.
        descriptor: What heads are compared by: ``'mean_logit'``, ``'received'``,
            ``'gram'``, or ``'literal'`` (the paper's words, which give a constant).
        embed_dims: Width of queries and keys.
        temperature: Divisor of their inner products, > 0.
        per_sample: One W for each image. False: one W for the batch (on each device),
            from the batch's mean similarities.
        detach_query: No gradient from W to the student's features, so that they do not
            change only to move W. False is SemCKD's way.
        balance: None, or ``'sinkhorn'`` for equal use of all teacher heads.
        uniform: W is 1 / M1 everywhere; nothing is learned and the settings above have
            no effect.

    Raises:
        UserError: for an unknown descriptor or balance, or a temperature or width
            that is not a number above 0.
    """

    def __init__(
        self,
        student_heads: int,
        teacher_heads: int,
        descriptor: str = 'mean_logit',
        embed_dims: int = 64,
        temperature: float = 1.0,
        per_sample: bool = True,
        detach_query: bool = True,
        balance: str | None = None,
        uniform: bool = False,
    ) -> None:
        super().__init__(student_heads, teacher_heads)
        if descriptor not in DESCRIPTORS:
            raise UserError(
                f'descriptor={descriptor!r} of AdaptiveMatching is unknown: use one of '
                f'{", ".join(map(repr, DESCRIPTORS))}'
            )
        if balance not in (None, 'sinkhorn'):
            raise UserError(
                f"balance={balance!r} of AdaptiveMatching is unknown: use 'sinkhorn', "
                'or None'
            )
        require_number(self, 'temperature', temperature, above=0)
        require_number(self, 'embed_dims', embed_dims, low=1, integer=True)
        self.describe = DESCRIPTORS[descriptor]
        self.temperature = temperature
        self.per_sample = per_sample
        self.detach_query = detach_query
        self.balance = balance
        self.uniform = uniform
        if not uniform:
            self.query = PerHeadProjection(student_heads, embed_dims)
            self.key = PerHeadProjection(teacher_heads, embed_dims)

    def match(self, student: Sides, teacher: Sides, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.forward`."""
        weights = self.head_weights(student, teacher)
        logits = relation_logits(*student)
        distances = distance(logits, constant_logits(teacher))
        loss = weighted_loss(distances, weights)
        return Matched(loss, weights.detach().expand_as(distances), logits.detach())

    def head_weights(self, student: Sides, teacher: Sides) -> Tensor:
        """W: ``(B, M2, M1)``, or ``(1, M2, M1)`` where the batch shares it."""
        if self.uniform:
            shape = (1, self.student_heads, self.teacher_heads)
            return widen(student[0]).new_full(shape, 1 / self.teacher_heads)
        with full_precision(student[0]):
            with torch.no_grad():
                teacher_likeness = self.describe(*teacher)
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and not self.detach_query
            ):
                student_likeness = self.describe(*student)
            if not self.per_sample:
                student_likeness = student_likeness.mean(0, keepdim=True)
                teacher_likeness = teacher_likeness.mean(0, keepdim=True)
            queries, keys = self.query(student_likeness), self.key(teacher_likeness)
            scores = queries @ keys.transpose(1, 2) / self.temperature
            return sinkhorn(scores) if self.balance else scores.softmax(-1)
