"""Time of one mask transform, ours beside the host's block masks, in one run.

    python benchmarks/masks.py

Prints the median of several rounds in microseconds, and the ratio to the host's
``BEiTMaskGenerator`` at the same grid and count.
"""

from __future__ import annotations

import statistics
import time

import torch
from mmpretrain.datasets.transforms import BEiTMaskGenerator

from medic_mm.datasets.transforms import BlockMask, GridMask, RandomMask

CALLS, ROUNDS = 500, 9


def microseconds(transform) -> float:
    """Median time of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            transform({})
        times.append((time.perf_counter() - start) / CALLS * 1e6)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    host = microseconds(
        BEiTMaskGenerator(14, num_masking_patches=78, min_num_patches=16)
    )
    print(f'host BEiTMaskGenerator, 40 %  {host:7.1f} us')
    ours = {
        'BlockMask, 40 %': BlockMask(14),
        'BlockMask, 75 %': BlockMask(14, 0.75),
        'BlockMask, 95 %': BlockMask(14, 0.95),
        'RandomMask, 40 %': RandomMask(14),
        'GridMask, 75 %': GridMask(14),
    }
    for name, transform in ours.items():
        taken = microseconds(transform)
        print(f'{name:<29} {taken:7.1f} us   {taken / host:.2f} x host')


if __name__ == '__main__':
    main()
