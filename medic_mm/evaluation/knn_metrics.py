"""Numbers of a k-NN evaluation, shared between processes and named for the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.logging import print_log
from torch import Tensor

from medic_mm.evaluation.features import Features
from medic_mm.evaluation.knn import knn_hits
from medic_mm.evaluation.rankme import rankme
from medic_mm.helpers import listed

TOPK = (1, 5)


def knn_metrics(
    train: Features,
    test: Features,
    num_classes: int,
    ks: Sequence[int] = (20,),
    temperature: float = 0.07,
    device: torch.device | str | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluate each feature; the processes of a group share the queries.

    Args:
        train: The bank.
        test: The queries; the same features as in ``train``, in every process.
        num_classes: Number of classes.
        ks: Numbers of neighbours.
        temperature: Of the weights.
        device: Where similarities are computed; default: the CPU.

    Returns:
        For each feature its numbers: ``top1_k20``, ``top5_k20`` (percent; the five best
        are left out for five classes or fewer) for each k, and ``rankme`` of the test
        features. They are NaN for a feature that has NaN or infinity.
    """
    topk = [n for n in TOPK if n < num_classes or n == 1]
    names = [f'top{n}_k{k}' for k in ks for n in topk]
    beyond = [k for k in ks if k > len(train.labels)]
    if beyond:
        print_log(
            f'k={listed(beyond)} is more than the {len(train.labels)} training images '
            'of k-NN: all of them vote, as with the largest k that there is',
            'current',
            logging.WARNING,
        )
    metrics: dict[str, dict[str, float]] = {}
    for feature, queries in test.values.items():
        bank = train.values[feature]
        if not (_finite(bank) and _finite(queries)):
            metrics[feature] = dict.fromkeys([*names, 'rankme'], math.nan)
            continue
        rank, world = get_dist_info()
        hits = knn_hits(
            bank,
            train.labels,
            queries[rank::world],
            test.labels[rank::world],
            num_classes,
            ks,
            temperature,
            topk,
            device=device,
        )
        all_reduce(hits)
        percent = (hits.flatten().double() * 100 / len(queries)).tolist()
        found = dict(zip(names, percent, strict=True))
        metrics[feature] = {**found, 'rankme': rankme(queries)}
    return metrics


def _finite(features: Tensor) -> bool:
    # the sum of finite float32 numbers stays finite in float64, and takes no copy
    return bool(torch.isfinite(features.sum(dtype=torch.float64)))
