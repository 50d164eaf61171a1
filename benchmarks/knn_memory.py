"""Peak memory and time of k-NN on random features; prints one line.

    python benchmarks/knn_memory.py --queries 10000 --bank 200000 --width 768 --k 200

Linux only: reads the peak of the process from the kernel.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from medic_mm.evaluation import knn_predict_many

MIB = 2**20


def current_memory() -> float:
    """Resident memory of the process now, in MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak_memory() -> float:
    """Greatest resident memory of the process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--queries', type=int, default=10_000)
    parser.add_argument('--bank', type=int, default=200_000)
    parser.add_argument('--width', type=int, default=768)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100, 200])
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(args.bank, args.width, generator=generator)
    queries = torch.randn(args.queries, args.width, generator=generator)
    labels = torch.randint(args.classes, (args.bank,), generator=generator)
    before, start, cpu = current_memory(), time.perf_counter(), time.process_time()
    knn_predict_many(bank, labels, queries, args.classes, ks=args.k)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_memory()
    inputs = (bank.numel() + queries.numel()) * 4 / MIB
    print(
        f'{args.queries} queries, bank of {args.bank}, {args.width} dimensions, '
        f'k={args.k}: {seconds:.1f} s ({cpu:.1f} s of CPU) on '
        f'{torch.get_num_threads()} threads; peak of the process {peak:.0f} MiB, of '
        f'which features {inputs:.0f} MiB; k-NN itself added {peak - before:.0f} MiB'
    )


if __name__ == '__main__':
    main()
