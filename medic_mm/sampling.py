"""Samples of a data set: of each class alike, drawn from a seed.

Data lie in the order of their classes, or their classes take turns. So what is taken
from the head, or by a stride, may be one class alone or lack one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def held_out(labels: Tensor, share: int = 10, seed: int = 0) -> Tensor:
    """Mark one of ``share`` samples of each class, drawn from a seed.

    Args:
        labels: Class of each sample, integers ``(N,)``, in any order.
        share: So many samples of a class have one marked, rounded down, but at least
            one where a class has two or more: the rest has a sample of every class.
        seed: Of the draw.

    Returns:
        bool ``(N,)``, on the CPU.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    marked = torch.zeros(len(labels), dtype=torch.bool)
    classes = labels.cpu()[order]
    for label in classes.unique():
        of_class = order[classes == label]
        count = len(of_class)
        marked[of_class[: max(count // share, int(count > 1))]] = True
    return marked


def ranks_in_class(
    names: Sequence[object], labels: Sequence[object], seed: int | None = 0
) -> list[int]:
    """Place of each sample in its class, from 0, in an order drawn from a seed.

    The order follows from the seed and the names: other samples, other classes and the
    order in which samples come change nothing, and a smaller part of a class lies
    within a larger one.

    Args:
        names: A name for each sample, for example its path below the data set's folder.
        labels: Class of each sample, or the same for all.
        seed: Of the draw; None: the order in which samples come.
    """
    places: list[int] = list(range(len(names)))
    if seed is not None:
        keys = [hashlib.sha256(f'{seed}/{name}'.encode()).digest() for name in names]
        places.sort(key=keys.__getitem__)
    seen: Counter = Counter()
    ranks = [0] * len(places)
    for place in places:
        ranks[place] = seen[labels[place]]
        seen[labels[place]] += 1
    return ranks


def in_turns(
    labels: Sequence[int | None],
    count: int,
    seed: int | None = 0,
    names: Sequence[object] | None = None,
) -> list[int]:
    """Places of ``count`` samples, one of each class in turn.

    Samples are drawn within their class as by :func:`ranks_in_class`. The classes that
    come first are drawn alike, for a count that leaves some out.

    Args:
        labels: Class of each sample; None: no class.
        count: How many; more than there are: all of them.
        seed: Of the draw; None: the order in which samples come.
        names: A name for each sample; default: its place.

    Returns:
        Places ordered by turn, then by class.
    """
    names = range(len(labels)) if names is None else names
    ranks = ranks_in_class(names, labels, seed)
    classes = sorted(set(labels), key=lambda label: -1 if label is None else label)
    number = {label: i for i, label in enumerate(classes)}
    turn = ranks_in_class(classes, [0] * len(classes), seed)
    places = sorted(
        range(len(labels)), key=lambda i: (ranks[i], turn[number[labels[i]]])
    )
    return sorted(places[:count], key=lambda i: (ranks[i], number[labels[i]]))
