"""The table of masks in the README: CIFAR-10, a real ViT-S/14 teacher, on a CPU.

    python benchmarks/cifar10_masks.py --data CIFAR10 --teacher vits14.safetensors
    python benchmarks/cifar10_masks.py --data CIFAR10 --teacher vits14.safetensors \\
        --ratio 0.40

All rows of a ratio hide the same number of patches, so that what remains is where they
lie. The model is that of ``cifar10_medic.py``, and so is the small protocol: 5,000
images (500 a class), 12 epochs, k-NN of the last checkpoint.

Each run has a folder in ``--out`` and is skipped once its ``result.json`` is there, so
that an interrupted table goes on where it stopped. All runs read one cache of teacher
outputs, with attention, which is filled first. Several processes may work on one
``--out`` at a time, on the same or on different ``--rows``: a second one waits for the
cache, and passes over what another is at. ``table.md`` is written anew after each run,
from all results on the disk.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar10_medic import untrained
from cifar10_runs import HEAD, ROOT, K, row, run, set_data, train
from mmengine.config import Config

from medic_mm.cli.knn import evaluate_knn

CONFIGS = ROOT / 'configs/medic'
RATIOS = {0.75: '75', 0.40: '40'}
#: Row of the table to the beginning of its config's name; the ratio follows.
MASKS = {
    'block': 'medic-block',
    'random': 'medic-random',
    'evolved EM': 'medic-evolved-em',
    'evolved HC': 'medic-evolved-hc',
    'evolved HC + bias': 'medic-evolved-hcbias',
}
#: Row of the table to the folder of its result.
WITHOUT_TRAINING = {
    'random network': 'random-network',
    'raw pixels': 'pixels-teacher',
    'teacher': 'pixels-teacher',
}


def short_name(mask: str, ratio: float) -> str:
    """Beginning of the config's name, and of the folders of its runs."""
    return MASKS[mask] + RATIOS[ratio]


def configure(args: argparse.Namespace, mask: str, seed: int) -> Config:
    """A row's config with this run's data, teacher, seed and protocol."""
    name = f'{short_name(mask, args.ratio)}_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px'
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    set_data(cfg, args.data, args.per_class)
    cfg.model.target_generator.teacher.weights = str(args.teacher)
    cfg.model.target_generator.cache_dir = str(args.out / 'teacher_cache')
    # in rows that do not need it too: then one cache serves all
    cfg.model.target_generator.attention = True
    cfg.randomness.seed = seed
    cfg.train_cfg.max_epochs = cfg.param_scheduler[1].end = args.epochs
    return cfg


def fill_cache(cfg: Config, folder: Path) -> dict:
    """A training of no epochs: all it does is fill the cache."""
    empty = copy.deepcopy(cfg)
    empty.train_cfg.max_epochs = 0
    empty.custom_hooks = [h for h in cfg.custom_hooks if 'KNN' not in h.type]
    empty.dump(folder / 'run.py')
    start = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, ROOT / 'tools/train.py', folder / 'run.py'),
            *('--work-dir', folder),
        ],
        check=True,
    )
    return dict(seconds=time.perf_counter() - start)


@contextmanager
def claimed(folder: Path, wait: bool) -> Iterator[bool]:
    """Whether this process alone works in a folder; the claim dies with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def run_alone(
    name: str, folder: Path, work: Callable[[], dict], wait: bool = False
) -> None:
    """Do a piece of work once, unless another process is at it."""
    with claimed(folder, wait) as mine:
        if mine:
            run(name, folder, work)
        else:
            print(f'--- {name}: another process is at it', flush=True)


def make_rows(args: argparse.Namespace) -> None:
    """Run what is missing; write the table after each run."""
    base = configure(args, 'block', args.seeds[0])
    folder = args.out / WITHOUT_TRAINING['teacher']
    if {'raw pixels', 'teacher'} & set(args.rows):
        run_alone('raw pixels, teacher', folder, lambda: untrained(base))
    masks = [mask for mask in MASKS if mask in args.rows]
    if masks:
        cache = args.out / 'cache'
        run_alone('teacher cache', cache, lambda: fill_cache(base, cache), wait=True)
    for seed in args.seeds:
        if 'random network' in args.rows:
            cfg = configure(args, 'block', seed)
            run_alone(
                f'random network, seed {seed}',
                args.out / f'{WITHOUT_TRAINING["random network"]}-{seed}',
                lambda c=cfg: evaluate_knn(c, 'random', ks=[K]),
            )
        for mask in masks:
            cfg = configure(args, mask, seed)
            folder = args.out / f'{short_name(mask, args.ratio)}-{seed}'
            run_alone(
                f'{mask} {args.ratio}, seed {seed}',
                folder,
                lambda c=cfg, f=folder: train(c, f),
            )
            write_table(args.out)
    write_table(args.out)


def finished(out: Path, name: str) -> list[dict]:
    """Results of all seeds that are on the disk."""
    paths = sorted(out.glob(f'{name}-[0-9]*/result.json'))
    return [json.loads(path.read_text()) for path in paths]


def write_table(out: Path) -> None:
    """One table of all ratios, from the results in ``out``."""
    lines = list(HEAD)
    if random := finished(out, WITHOUT_TRAINING['random network']):
        lines.append(row('random network', random))
    path = out / WITHOUT_TRAINING['teacher'] / 'result.json'
    if path.is_file():
        found = json.loads(path.read_text())
        pixels, cls, mean = (
            found[name][f'top1_k{K}'] for name in ('pixels', 'cls', 'mean')
        )
        lines.append(f'| raw pixels | {pixels:.1f} | {pixels:.1f} | - | - |')
        lines.append(f'| teacher | {cls:.1f} | {mean:.1f} | - | - |')
    for ratio in RATIOS:
        for mask in MASKS:
            if results := finished(out, short_name(mask, ratio)):
                lines.append(row(f'{mask}, {ratio * 100:.0f} % hidden', results))
    # at once, since another process may write it too
    fresh = out / f'table.{os.getpid()}'
    fresh.write_text('\n'.join(lines) + '\n')
    fresh.replace(out / 'table.md')


def main() -> None:
    """Parse, run what is missing, print the table."""
    rows = [*WITHOUT_TRAINING, *MASKS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='CIFAR-10 folders')
    parser.add_argument('--teacher', type=Path, required=True, help='ViT-S/14 file')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/cifar10_masks'))
    parser.add_argument('--ratio', type=float, choices=RATIOS, default=0.75)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--rows', nargs='+', choices=rows, default=rows, help='default: all'
    )
    parser.add_argument('--epochs', type=int, default=12, help='at least 2 (12)')
    parser.add_argument(
        '--per-class', type=int, default=500, help='training images a class (500)'
    )
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    make_rows(args)
    print((args.out / 'table.md').read_text(), flush=True)


if __name__ == '__main__':
    main()
