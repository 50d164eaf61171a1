"""Samples drawn per class, against counts by hand."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

from medic_mm.sampling import held_out


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
