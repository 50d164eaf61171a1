"""Which student head learns from which teacher heads, without learned weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError
from medic_mm.models.losses import relation_entropy, relation_logits
from medic_mm.models.losses.relation import full_precision, widen
from medic_mm.models.vit.qkv import resplit_heads

Distance = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]  # the two sides of a relation, (B, M, N, d) each
SHARPEST = 'sharpest'


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

    @classmethod
    def weighted(cls, distances: Tensor, weights: Tensor, logits: Tensor) -> Matched:
        """From distances and weights of every pair of heads, ``(B, M2, M1)`` each.

        Sum over teacher heads, mean over student heads and batch (MIM-HD Eq. 7 divided
        by the number of student heads).
        """
        loss = (distances * weights).sum(-1).mean()
        return cls(loss, weights.detach().expand_as(distances), logits.detach())

    def health(self) -> dict[str, Tensor]:
        """Numbers that show whether a matching has collapsed; a low loss does not.

        ``entropy`` and ``used_heads`` (absent without weights) are
        :func:`weight_entropy` and :func:`used_heads`; ``cos_student`` (absent for a
        single head) is :func:`head_similarity`.
        """
        numbers = {}
        if self.weights is not None:
            numbers['entropy'] = weight_entropy(self.weights)
            numbers['used_heads'] = used_heads(self.weights)
        if self.student_logits.shape[1] > 1:
            numbers['cos_student'] = head_similarity(self.student_logits)
        return numbers


class HeadMatching(nn.Module):
    """Base of the strategies that say which student head learns which teacher head.

    A subclass implements :meth:`match`.

    Attributes:
        matched_heads: How many student heads the mean of the loss runs over.

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
        self.matched_heads = student_heads

    def check_widths(self, student: int, teacher: int) -> None:
        """Refuse widths of the two blocks that the strategy cannot work with.

        Raises:
            UserError: says which; most strategies take any width.
        """

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """As :meth:`forward`, which has checked both sides.

        Both have the declared numbers of heads and are in fp32 (fp64 stays), autocast
        is off, and the teacher takes no gradient.
        """
        raise NotImplementedError

    def forward(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """Distance of the student's heads to those teacher heads that they learn from.

        Args:
            student: Both sides of the relation, ``(B, M2, N, d)`` each.
            teacher: The same of the teacher, ``(B, M1, N, d')``, taken as constant.
            distance: ``relation_kl`` or a function of the same shapes.

        Raises:
            UserError: where the numbers of heads or tokens are not as declared.
        """
        for side, features in (('student', student[0]), ('teacher', teacher[0])):
            declared, given = getattr(self, f'{side}_heads'), features.shape[1]
            if given != declared:
                raise UserError(
                    f'{side}_heads={declared} of {type(self).__name__}, but the '
                    f'distilled block of the {side} has {given} heads'
                )
        ours, theirs = student[0].shape[2], teacher[0].shape[2]
        if ours != theirs:
            raise UserError(
                f'the student has {ours} tokens and the teacher {theirs}: relations '
                'need the same grid on both sides'
            )
        with full_precision(student[0]):
            return self.match(
                (widen(student[0]), widen(student[1])),
                (widen(teacher[0]).detach(), widen(teacher[1]).detach()),
                distance,
            )


class OneToOneMatching(HeadMatching):
    """Heads in order, for a student block with as many heads as the teacher's.

    TinyMIM gives the student's last block the teacher's number of heads for it (the
    adaptive block, ``block_heads`` of ``RelationViT``). Source: TinyMIM Sec. 3.2,
    MIM-HD Fig. 2c.

    Raises:
        UserError: where the two numbers of heads differ.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__(student_heads, teacher_heads)
        require(
            student_heads == teacher_heads,
            f'OneToOneMatching needs equal numbers of heads, but '
            f'student_heads={student_heads} and teacher_heads={teacher_heads}: give '
            f"the student's distilled block {teacher_heads} heads, or use another "
            'matching',
        )

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.match`."""
        return _in_order(student, teacher, distance)


class RelationHeadMatching(HeadMatching):
    """Join the heads of each side, split them into ``num_heads``, match in order.

    Needs no parameters and no equal numbers of heads; the relation heads are not the
    attention heads of the network. ``Matched.student_logits`` is of relation heads.
    Source: MiniLMv2 (https://arxiv.org/abs/2012.15828).

    Args:
        num_heads: Number of relation heads; must divide the width of both blocks.
            Default: the teacher's number of heads.

    Raises:
        UserError: for fewer than one relation head, or, with the first batch, a number
            that does not divide a block's width (:meth:`check_widths` says so before).
    """

    def __init__(
        self, student_heads: int, teacher_heads: int, num_heads: int | None = None
    ) -> None:
        super().__init__(student_heads, teacher_heads)
        if num_heads is not None:
            require_number(self, 'num_heads', num_heads, low=1, integer=True)
        self.num_heads = teacher_heads if num_heads is None else num_heads
        self.matched_heads = self.num_heads

    def check_widths(self, student: int, teacher: int) -> None:
        """See :meth:`HeadMatching.check_widths`: the heads must divide both."""
        for side, width in (('student', student), ('teacher', teacher)):
            require(
                width % self.num_heads == 0,
                f'num_heads={self.num_heads} of RelationHeadMatching does not divide '
                f'the width {width} of the {side}: choose a number that divides '
                f'{student} and {teacher}',
            )

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.match`."""
        first, second = (
            tuple(resplit_heads(features, self.num_heads) for features in side)
            for side in (student, teacher)
        )
        return _in_order(first, second, distance)


class AverageMatching(HeadMatching):
    """The student's mean softmaxed map learns the teacher's mean softmaxed map.

    Single heads stay free as long as their mean fits; ``AdaptiveMatching`` with
    ``uniform=True`` pulls every single head to all teacher heads alike instead. Source:
    MIM-HD Fig. 2a.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__(student_heads, teacher_heads)
        self.matched_heads = 1  # merged

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.match`."""
        logits = relation_logits(*student)
        loss = distance(_merged(logits), _merged(relation_logits(*teacher)))
        return Matched(loss.mean(), None, logits.detach())


class SelectMatching(HeadMatching):
    """Each student head learns one teacher head, chosen by hand or by score.

    The paper's Fig. 2b selects the head of most influence on a downstream task, which
    needs labels. Without them, either name heads (for example after looking at the
    attention pictures), or score them by the entropy of their maps: a diffuse map says
    little.

    Args:
        heads: Teacher heads counted from 0: one for each student head in order, or one
            number for all student heads. ``'sharpest'`` (default): in each batch and
            relation the ``student_heads`` teacher heads of lowest mean entropy, in the
            teacher's order, so that near ties do not reshuffle the pairs.

    Raises:
        UserError: for another word, a wrong number of heads, a head that the teacher
            does not have, or ``'sharpest'`` with more student than teacher heads.
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
            require(
                heads == SHARPEST,
                f'heads={heads!r} of SelectMatching is unknown: give teacher heads, or '
                f'{SHARPEST!r}',
            )
            require(
                student_heads <= teacher_heads,
                f'heads={SHARPEST!r} of SelectMatching needs a teacher head for each '
                f'student head, but student_heads={student_heads} and '
                f'teacher_heads={teacher_heads}: give the teacher heads by number',
            )
        else:
            several = isinstance(heads, Iterable)
            named = tuple(heads) if several else (heads,) * student_heads
            require(
                len(named) == student_heads,
                f'heads of SelectMatching names {len(named)} teacher heads, but the '
                f'student has {student_heads} heads: name one for each',
            )
            for head in named:
                limits = dict(low=0, high=teacher_heads - 1, integer=True)
                require_number(self, 'heads', head, **limits)
            chosen = torch.tensor(named)
        # a buffer only to be where the model is; the config holds it
        self.register_buffer('chosen', chosen, persistent=False)

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.match`."""
        logits, targets = relation_logits(*student), relation_logits(*teacher)
        chosen = self.chosen
        if chosen is None:
            chosen = sharpest_heads(targets, self.student_heads)
        distances = distance(logits, targets)
        weights = F.one_hot(chosen, self.teacher_heads).to(distances.dtype)
        return Matched.weighted(distances, weights.expand_as(distances), logits)


def sharpest_heads(logits: Tensor, count: int) -> Tensor:
    """Indices ``(count,)`` of the heads of lowest mean entropy, ascending.

    Of logits ``(B, M, N, N)``; ``count`` is at most M.
    """
    entropy = relation_entropy(logits).mean(0)
    return entropy.topk(count, largest=False).indices.sort().values


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
    with torch.autocast(logits.device.type, enabled=False):
        maps = logits.softmax(-1).flatten(2)
        products = maps @ maps.transpose(1, 2)
        norms = products.diagonal(dim1=1, dim2=2).sqrt()
        cosines = products / (norms[:, :, None] * norms[:, None])
        heads = logits.shape[1]
        # the diagonal is 1 for each head
        return ((cosines.sum((1, 2)) - heads) / (heads * (heads - 1))).mean()


def _in_order(student: Pair, teacher: Pair, distance: Distance) -> Matched:
    """Student head m learns teacher head m; both sides have as many heads."""
    logits = relation_logits(*student)
    distances = distance(logits, relation_logits(*teacher))
    loss = distances.diagonal(dim1=1, dim2=2).mean()
    return Matched(loss, None, logits.detach())


def _merged(logits: Tensor) -> Tensor:
    """Logits whose softmax is the mean over heads of the softmaxed maps.

    ``(B, M, N, N)`` -> ``(B, 1, N, N)``, without taking the logarithm of a softmax.
    """
    merged = logits.log_softmax(-1).logsumexp(1, keepdim=True)
    return merged - math.log(logits.shape[1])
