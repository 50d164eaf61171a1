"""Adaptive matching: learned weights of all teacher heads for each student head."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.models.losses import relation_logits
from medic_mm.models.mimhd.matching import Distance, HeadMatching, Matched, Pair

# What heads are compared by. Each function turns one relation, x and y (B, M, N, d),
# into the similarities S (B, M, M) of its heads (MIM-HD Eq. 4 and the text around it).
# The paper describes a head by the mean of its map. Every row of a softmaxed map sums
# to 1, so that mean is 1/N for every head, image and step: read literally, the weights
# cannot depend on the student. The other readings here do.


def mean_logit(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the mean of their logits, before the softmax; S is of rank 1.

    The mean of all inner products is the inner product of the means, so no N x N map is
    needed.
    """
    mean = (x.mean(2) * y.mean(2)).sum(-1) * x.shape[-1] ** -0.5
    return mean[:, :, None] * mean[:, None]


def received(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the attention that each token receives, the mean over query rows.

    S has inner products, times N so that uniform maps give 1.
    """
    tokens = relation_logits(x, y).softmax(-1).mean(2)
    return tokens @ tokens.transpose(1, 2) * x.shape[2]


def gram(x: Tensor, y: Tensor) -> Tensor:
    """Heads by their whole softmaxed maps, as SemCKD does with samples.

    S has inner products of the maps; uniform maps give 1.
    """
    maps = relation_logits(x, y).softmax(-1).flatten(2)
    return maps @ maps.transpose(1, 2)


def literal(x: Tensor, y: Tensor) -> Tensor:
    """Heads by the mean of their softmaxed maps: a constant, kept to show just that.

    S is ``1 / N**2`` everywhere, whatever the features.
    """
    mean = relation_logits(x, y).softmax(-1).mean((2, 3))
    return mean[:, :, None] * mean[:, None]


DESCRIPTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    describe.__name__: describe for describe in (mean_logit, received, gram, literal)
}


def sinkhorn(scores: Tensor, iterations: int = 100) -> Tensor:
    """Weights with rows of sum 1 and columns of equal sums, by Sinkhorn's iteration.

    The softmax over teacher heads with a bias for each of them that evens out their
    load. Rows and columns are normalised in turn, in the logarithm; rows come last, so
    they are exact and columns are as good as the iteration. Training pulls against
    them: at inner products of -1..1 over a temperature of 0.1, 20 iterations let a
    column drift by a third, 100 keep it within a few thousandths.

    ``(B, M2, M1)``, divided by the temperature -> the same shape, columns of sum
    ``M2 / M1``; differentiable.
    """
    rows, columns = scores.shape[-2:]
    column_sum = math.log(rows / columns)
    for _ in range(iterations):
        scores = scores.log_softmax(-2) + column_sum
        scores = scores.log_softmax(-1)
    return scores.exp()


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
        require(
            descriptor in DESCRIPTORS,
            f'descriptor={descriptor!r} of AdaptiveMatching is unknown: use one of '
            f'{", ".join(map(repr, DESCRIPTORS))}',
        )
        require(
            balance in (None, 'sinkhorn'),
            f"balance={balance!r} of AdaptiveMatching is unknown: use 'sinkhorn', or "
            'None',
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

    def match(self, student: Pair, teacher: Pair, distance: Distance) -> Matched:
        """See :meth:`HeadMatching.match`."""
        weights = self.head_weights(student, teacher)
        logits = relation_logits(*student)
        distances = distance(logits, relation_logits(*teacher))
        return Matched.weighted(distances, weights, logits)

    def head_weights(self, student: Pair, teacher: Pair) -> Tensor:
        """W: ``(B, M2, M1)``, or ``(1, M2, M1)`` where the batch shares it."""
        if self.uniform:
            shape = (1, self.student_heads, self.teacher_heads)
            return student[0].new_full(shape, 1 / self.teacher_heads)
        theirs = self.describe(*teacher)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_query):
            ours = self.describe(*student)
        if not self.per_sample:
            ours, theirs = ours.mean(0, keepdim=True), theirs.mean(0, keepdim=True)
        scores = self.query(ours) @ self.key(theirs).transpose(1, 2) / self.temperature
        return sinkhorn(scores) if self.balance else scores.softmax(-1)
