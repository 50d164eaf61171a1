"""Weighted k-nearest-neighbour classification of frozen features.

The protocol is the one of Wu et al. (arXiv 1805.01978, section 3.4) that DINO made
usual: cosine similarity, each of the k nearest training features votes for its class
with weight ``exp(similarity / temperature)``. Needs torch only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medic_mm.checks import require_number, require_numbers
from medic_mm.errors import UserError
from medic_mm.evaluation.neighbours import nearest_neighbours

#: Queries that vote at once: bounds the memory, leaves the result as it is.
_CHUNK = 1024
#: ``exp`` of it, times the votes of a large bank, is still a float32.
_EXPONENT = 80.0


def knn_predict(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Score each class for each query by a vote of its k nearest neighbours.

    Args:
        train_feats: The bank, ``(N, D)``, any floating dtype, any scale.
        train_labels: Class of each bank feature, integers ``(N,)`` in
            ``0..num_classes - 1``.
        test_feats: Queries, ``(Q, D)``.
        num_classes: Number of classes C; those without a bank feature score 0.
        k: Number of neighbours. Larger than N: all N vote, with a warning.
        temperature: Of the weights; smaller lets the nearest decide.
        device: Where similarities are computed; default: where the queries are. The
            features are moved there in chunks.

    Returns:
        Scores ``(Q, C)``, float32, on the device of the queries: sums of
        ``exp(similarity / temperature)``. Where that would overflow (temperatures below
        about 0.0125) a query's scores are scaled down by one factor.

    Of neighbours equally near, those earlier in the bank count. A feature of zeros has
    similarity 0 to everything.

    Raises:
        UserError: for an empty bank, absent or out-of-range labels, widths that
            differ, features with NaN or infinity, or ``k`` or ``temperature`` that is
            not positive.
    """
    scores = knn_predict_many(
        train_feats,
        train_labels,
        test_feats,
        num_classes,
        ks=(k,),
        temperature=temperature,
        device=device,
    )
    return scores[k]


def knn_predict_many(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    num_classes: int,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    *,
    device: torch.device | str | None = None,
) -> dict[int, Tensor]:
    """:func:`knn_predict` for several k, for the price of the largest.

    Returns:
        ``{k: scores (Q, C)}``, in the order of ``ks``.
    """
    chunks: dict[int, list[Tensor]] = {k: [] for k in ks}
    for _, scores in _scores_by_chunk(
        train_feats, train_labels, test_feats, num_classes, ks, temperature, device
    ):
        for k, part in scores.items():
            chunks[k].append(part)
    empty = torch.zeros(0, num_classes)
    return {k: torch.cat([empty, *chunks[k]]).to(test_feats.device) for k in chunks}


def knn_hits(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    test_labels: Tensor,
    num_classes: int,
    ks: Sequence[int] = (20,),
    temperature: float = 0.07,
    topk: Sequence[int] = (1, 5),
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Count the queries whose class is among the n best, for each k and n.

    The scores are never held for all queries at once. Counts of parts of the queries
    add up, so processes can share the work.

    Args:
        test_labels: Class of each query, integers ``(Q,)``.
        topk: The values of n.

    Returns:
        Counts, int64 ``(len(ks), len(topk))``, on the CPU.
    """
    check_labels('test_labels', test_labels, len(test_feats), num_classes)
    labels = test_labels.cpu().long()
    hits = torch.zeros(len(ks), len(topk), dtype=torch.int64)
    for rows, scores in _scores_by_chunk(
        train_feats, train_labels, test_feats, num_classes, ks, temperature, device
    ):
        for row, k in enumerate(ks):
            hits[row] += count_hits(scores[k], labels[rows], topk)
    return hits


def knn_accuracy(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    test_labels: Tensor,
    num_classes: int,
    ks: Sequence[int] = (20,),
    temperature: float = 0.07,
    topk: Sequence[int] = (1, 5),
    *,
    device: torch.device | str | None = None,
) -> dict[int, dict[int, float]]:
    """Accuracy in percent; arguments as for :func:`knn_hits`.

    Returns:
        ``{k: {n: accuracy of the n best classes}}``.

    Raises:
        UserError: also for no queries at all.
    """
    if len(test_feats) == 0:
        raise UserError('test_feats is empty: k-NN accuracy needs at least one query')
    hits = knn_hits(
        train_feats,
        train_labels,
        test_feats,
        test_labels,
        num_classes,
        ks,
        temperature,
        topk,
        device=device,
    )
    percent = hits.double() * 100 / len(test_feats)
    return {
        k: {n: percent[row, column].item() for column, n in enumerate(topk)}
        for row, k in enumerate(ks)
    }


def count_hits(scores: Tensor, labels: Tensor, topk: Sequence[int]) -> Tensor:
    """Count the rows whose class is among the n best scores.

    Of equal scores the lower class goes first, and a class without any vote is never
    a hit: with k=1 the five best are no better than the best.

    Args:
        scores: ``(Q, C)``.
        labels: ``(Q,)``, int64.
        topk: The values of n.

    Returns:
        Counts, int64 ``(len(topk),)``.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    rank = ahead.sum(dim=1)
    voted = own[:, 0] > 0
    return torch.stack([((rank < n) & voted).sum() for n in topk])


def check_settings(ks: Sequence[int], temperature: float) -> None:
    """Refuse numbers of neighbours or a temperature that are not positive.

    Raises:
        UserError: names the setting and its value.
    """
    if len(ks) == 0:
        raise UserError('k is empty: name at least one number of neighbours')
    require_numbers('', 'k', ks, low=1, integer=True)
    require_number('', 'temperature', temperature, above=0)


def _scores_by_chunk(
    train_feats: Tensor,
    train_labels: Tensor,
    test_feats: Tensor,
    num_classes: int,
    ks: Sequence[int],
    temperature: float,
    device: torch.device | str | None,
) -> Iterator[tuple[slice, dict[int, Tensor]]]:
    """Check the input, then yield slices of the queries with their scores."""
    check_features(train_feats, train_labels, test_feats, num_classes)
    check_settings(ks, temperature)
    if max(ks) > len(train_feats):
        warnings.warn(
            f'k={max(ks)} is larger than the bank of {len(train_feats)} features: all '
            'of them vote',
            stacklevel=3,
        )
    depth = min(max(ks), len(train_feats))
    similarities, places = nearest_neighbours(
        train_feats, test_feats, depth, device=device
    )
    labels = train_labels.cpu().long()
    for start in range(0, len(test_feats), _CHUNK):
        rows = slice(start, start + _CHUNK)
        votes = labels[places[rows]]
        yield rows, _vote(similarities[rows], votes, num_classes, ks, temperature)


def _vote(
    similarities: Tensor,
    votes: Tensor,
    num_classes: int,
    ks: Sequence[int],
    temperature: float,
) -> dict[int, Tensor]:
    nearest = similarities[:, :1]
    # the largest exponent is taken apart, and bounded, so that nothing overflows
    scale = (nearest / temperature).clamp(-_EXPONENT, _EXPONENT).exp()
    weights = ((similarities - nearest) / temperature).exp() * scale
    running = torch.zeros(len(votes), num_classes)
    scores, counted = {}, 0
    for k in sorted(set(ks)):
        fresh = slice(counted, k)
        running = running.scatter_add(1, votes[:, fresh], weights[:, fresh])
        scores[k], counted = running, k
    return scores


def check_features(
    train_feats: Tensor, train_labels: Tensor, test_feats: Tensor, num_classes: int
) -> None:
    """Refuse features and training labels of other shapes, none, or out of range.

    Raises:
        UserError: names the argument, what it is and what it must be.
    """
    for name, features in (('train_feats', train_feats), ('test_feats', test_feats)):
        if features.ndim != 2:
            raise UserError(
                f'{name} has shape {tuple(features.shape)} but must be (N, D): one row '
                'of D numbers for each image'
            )
    if train_feats.shape[1] != test_feats.shape[1]:
        raise UserError(
            f'train_feats has {train_feats.shape[1]} dimensions but test_feats '
            f'{test_feats.shape[1]}: both must come from the same network'
        )
    if len(train_feats) == 0:
        raise UserError('train_feats is empty: at least one training image is needed')
    if num_classes < 1:
        raise UserError(f'num_classes={num_classes} must be 1 or more')
    check_labels('train_labels', train_labels, len(train_feats), num_classes)


def check_labels(
    name: str, labels: Tensor | None, length: int, num_classes: int
) -> None:
    """Refuse labels that are not one class number for each of ``length`` features.

    Raises:
        UserError: names the argument, what it is and what it must be.
    """
    if labels is None:
        raise UserError(f'{name} is None: the class of each feature is needed')
    if labels.shape != (length,):
        raise UserError(
            f'{name} has shape {tuple(labels.shape)} but must be ({length},): one '
            'class for each feature'
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f'{name} has dtype {labels.dtype} but must hold integers')
    if length and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UserError(
            f'{name} holds classes {int(labels.min())} to {int(labels.max())} but '
            f'num_classes={num_classes} allows 0 to {num_classes - 1}'
        )
