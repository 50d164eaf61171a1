"""Balanced weights: every teacher head is used as much as any other."""

from __future__ import annotations

import math

from torch import Tensor


def sinkhorn(scores: Tensor, iterations: int = 100) -> Tensor:
    """Weights with rows of sum 1 and columns of equal sums, by Sinkhorn's iteration.

    The softmax over teacher heads with a bias for each of them that evens out their
    load. Rows and columns are normalised in turn, in the logarithm; rows come last, so
    they are exact and columns are as good as the iteration. Training pulls against
    them: at inner products of -1..1 over a temperature of 0.1, 20 iterations let a
    column drift by a third, 100 keep it within a few thousandths.

    Args:
        scores: ``(B, M2, M1)``, divided by the temperature.
        iterations: How often both are normalised.

    Returns:
        ``(B, M2, M1)``, columns of sum ``M2 / M1``; differentiable.
    """
    rows, columns = scores.shape[-2:]
    column_sum = math.log(rows / columns)
    for _ in range(iterations):
        scores = scores.log_softmax(-2) + column_sum
        scores = scores.log_softmax(-1)
    return scores.exp()
