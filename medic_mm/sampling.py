"""Samples of a data set: for each class alike, drawn from a seed.

Data lie in the order of their classes, or their classes take turns. So what is taken
from the head, or by a stride, may be one class alone or lack one.
"""

from __future__ import annotations

import torch
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
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    marked = torch.zeros(len(labels), dtype=torch.bool)
    classes = labels.cpu()[order]
    for label in classes.unique():
        of_class = order[classes == label]
        count = len(of_class)
        marked[of_class[: max(count // share, int(count > 1))]] = True
    return marked
