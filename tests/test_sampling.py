"""Samples drawn per class, against counts by hand."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

from medic_mm.sampling import held_out, in_turns, ranks_in_class


@pytest.mark.parametrize('classes_lie', ['in turns', 'sorted', 'shuffled'])
@pytest.mark.parametrize('share', [3, 10])
def test_a_share_of_every_class_is_held_out(classes_lie, share):
    sizes = {0: 30, 1: 1, 2: 2, 5: 47, 7: 9}
    labels = [label for label, size in sizes.items() for _ in range(size)]
    if classes_lie != 'sorted':
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
        labels = [labels[i] for i in order]
    if classes_lie == 'in turns':
        labels = [i % 9 for i in range(90)]
    marked = held_out(torch.tensor(labels), share)
    taken = Counter(
        label for label, held in zip(labels, marked.tolist(), strict=True) if held
    )
    for label, size in Counter(labels).items():
        assert taken[label] == (0 if size == 1 else max(1, size // share))


def test_the_seed_decides_what_is_held_out():
    labels = torch.arange(100) % 4
    first, again, other = held_out(labels), held_out(labels), held_out(labels, seed=1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    # neither a head nor a stride of a class
    places = [i // 4 for i in first.nonzero()[:, 0].tolist()]
    assert max(places) > 6 and len({b - a for a, b in pairwise(places)}) > 2


def test_a_place_in_a_class_follows_from_the_names():
    names = [f'{i}.png' for i in range(12)]
    labels = [i % 3 for i in range(12)]
    ranks = ranks_in_class(names, labels, seed=5)
    for label in range(3):
        of_class = [rank for rank, x in zip(ranks, labels, strict=True) if x == label]
        assert sorted(of_class) == [0, 1, 2, 3]
    back = ranks_in_class(names[::-1], labels[::-1], seed=5)
    assert back == ranks[::-1]
    assert ranks_in_class(names, labels, seed=None) == [i // 3 for i in range(12)]
    assert ranks_in_class(names, labels, seed=6) != ranks


def test_classes_take_turns():
    labels = [1, 1, 0, 2, 0, 1, None]
    places = in_turns(labels, 9)
    assert sorted(places) == list(range(7))
    assert [labels[i] for i in places] == [None, 0, 1, 2, 0, 1, 1]
    assert [labels[i] for i in in_turns(labels, 4)] == [None, 0, 1, 2]
    assert in_turns(labels, 5) == in_turns(labels, 5)
    # without labels, and of more classes than places, neither head nor stride
    plain = in_turns([None] * 1000, 8)
    assert max(plain) > 200 and len({b - a for a, b in pairwise(sorted(plain))}) > 2
    few = in_turns([i // 10 for i in range(1000)], 8)
    classes = [i // 10 for i in few]
    assert len(set(classes)) == 8 and max(classes) > 50
    assert in_turns([0, 1], 9, seed=None) == [0, 1]
