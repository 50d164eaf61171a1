"""The transfer table of the README: pre-trained against random, on a CPU.

    python benchmarks/transfer.py --data DATA --medic MEDIC.pth --mimhd MIMHD.pth

DATA holds ``cifar10`` and ``camvid``. Both checkpoints are students of laptop size,
from ``configs/medic`` and ``configs/mimhd``. Each is compared with its own network at
random: k-NN, linear probe and fine-tuning on CIFAR-10 (5,000 images, 500 a class), and
UperNet on CamVid at 240x176, through the configs of ``configs/benchmarks`` with fewer
steps. Both sides of a comparison take the same steps.

Each piece has a folder in ``--out`` and is skipped once its ``result.json`` is there.
``table.md`` is written anew from all results that exist, whichever call made them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cifar10_runs import ROOT, K, accuracy, last_checkpoint, run, set_data
from mmengine.config import Config

from medic_mm.cli.linear_probe import evaluate_linear

CONFIGS = ROOT / 'configs'
BENCHMARKS = CONFIGS / 'benchmarks'
PRETRAINING = {
    'MEDiC': 'medic/medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py',
    'MIM-HD': 'mimhd/mimhd_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py',
}
#: What the benchmarks of a family read: its feature and the start of config names.
FAMILY = {'MEDiC': ('cls', 'medic-pre'), 'MIM-HD': ('mean', 'mimhd-pre')}
TASKS = ('features', 'finetune', 'camvid')
HEAD = (
    '| student | starts from | k-NN | linear probe | fine-tuning | CamVid mIoU |\n'
    '|---|---|---:|---:|---:|---:|'
)


def features(args: argparse.Namespace, method: str, start: str, seed: int) -> dict:
    """k-NN and linear probe on features computed once."""
    cfg = Config.fromfile(CONFIGS / PRETRAINING[method])
    set_data(cfg, args.data / 'cifar10', args.per_class)
    cfg.randomness.seed = seed
    name = FAMILY[method][0]
    found = evaluate_linear(cfg, start, features=('cls', 'mean'), ks=(K,))
    linear = next(r['top1'] for r in found['linear'] if r['features'] == name)
    found['results'] = found['knn']
    return dict(knn=accuracy(found, name), linear=linear, report=found)


def finetune(
    args: argparse.Namespace, method: str, start: str, seed: int, folder: Path
) -> dict:
    """Fine-tune on CIFAR-10; the last checkpoint counts, not the best."""
    name = f'vit-tiny-p8_{FAMILY[method][1]}_1xb100-coslr-10e_cifar10-64px.py'
    cfg = Config.fromfile(BENCHMARKS / 'classification' / name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(args.data / 'cifar10')
    # as in set_data
    cfg.train_dataloader.dataset.update(per_class=args.per_class, draw_seed=None)
    cfg.train_cfg.max_epochs = cfg.param_scheduler[1].end = args.epochs
    return train_and_test(cfg, start, seed, folder)


def camvid(
    args: argparse.Namespace, method: str, start: str, seed: int, folder: Path
) -> dict:
    """Segment CamVid by UperNet; trained on its training, tested on its test part."""
    name = f'vit-tiny-p8_{FAMILY[method][1]}_upernet_1xb8-400i_camvid-240x176.py'
    cfg = Config.fromfile(BENCHMARKS / 'segmentation' / name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(args.data / 'camvid')
    cfg.train_cfg.max_iters = cfg.param_scheduler[1].end = args.iterations
    # a tenth, as in the config
    cfg.param_scheduler[0].end = cfg.param_scheduler[1].begin = args.iterations // 10
    cfg.default_hooks.checkpoint.interval = args.iterations
    return train_and_test(cfg, start, seed, folder)


def train_and_test(cfg: Config, start: str, seed: int, folder: Path) -> dict:
    """Train and test by the tools that a user would call."""
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint.pop('save_best', None)
    cfg.dump(folder / 'run.py')
    begin = time.perf_counter()
    options = ['--work-dir', folder, '--pretrained', start, '--resume', 'auto']
    # only the end is looked at
    call('train', folder / 'run.py', '--no-validate', *options)
    seconds = time.perf_counter() - begin
    metrics = folder / 'metrics.json'
    call(
        *('test', folder / 'run.py', last_checkpoint(folder)),
        *('--work-dir', folder / 'test', '--out', metrics),
    )
    return dict(json.loads(metrics.read_text()), training_seconds=seconds)


def call(tool: str, *arguments: object) -> None:
    """One of the project's tools, in a process of its own."""
    script = ROOT / 'tools' / f'{tool}.py'
    subprocess.run([sys.executable, script, *map(str, arguments)], check=True)


def make_table(args: argparse.Namespace) -> str:
    """All finished results as one table."""
    lines = [HEAD]
    for method in PRETRAINING:
        for name, start in (('random', 'random'), ('pre-training', 'pretrained')):
            cells = [
                cell(args.out, f'{method}-{start}-features', lambda r: r['knn']),
                cell(args.out, f'{method}-{start}-features', lambda r: r['linear']),
                cell(
                    args.out,
                    f'{method}-{start}-finetune',
                    lambda r: r['accuracy/top1'],
                ),
                cell(args.out, f'{method}-{start}-camvid', lambda r: r['mIoU']),
            ]
            lines.append(f'| {method} | {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def cell(out: Path, stem: str, read: Callable[[dict], float]) -> str:
    """Mean over the seeds that are there, half their range, and how many."""
    files = sorted(out.glob(f'{stem}-*/result.json'))
    values = [read(json.loads(file.read_text())) for file in files]
    if not values:
        return '-'
    mean = f'{statistics.mean(values):.1f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {(max(values) - min(values)) / 2:.1f} ({len(values)})'


def main() -> None:
    """Parse, run what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--medic', required=True, help='checkpoint of MEDiC')
    parser.add_argument('--mimhd', required=True, help='checkpoint of MIM-HD')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/transfer'))
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--methods', nargs='+', choices=PRETRAINING)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--per-class', type=int, default=500, help='training images')
    parser.add_argument('--epochs', type=int, default=3, help='of fine-tuning')
    parser.add_argument('--iterations', type=int, default=150, help='of segmentation')
    args = parser.parse_args()
    args.out, args.data = args.out.resolve(), args.data.resolve()
    starts = {'MEDiC': args.medic, 'MIM-HD': args.mimhd}
    for seed in args.seeds:
        for task in args.tasks:
            for method in args.methods or PRETRAINING:
                for start in ('random', starts[method]):
                    kind = 'random' if start == 'random' else 'pretrained'
                    folder = args.out / f'{method}-{kind}-{task}-{seed}'
                    todo = {
                        'features': lambda m=method, s=start, n=seed: features(
                            args, m, s, n
                        ),
                        'finetune': lambda m=method, s=start, n=seed, f=folder: (
                            finetune(args, m, s, n, f)
                        ),
                        'camvid': lambda m=method, s=start, n=seed, f=folder: camvid(
                            args, m, s, n, f
                        ),
                    }[task]
                    run(f'{task}, {method}, {kind}, seed {seed}', folder, todo)
                    table = make_table(args)
                    (args.out / 'table.md').write_text(table)
    print(table, flush=True)


if __name__ == '__main__':
    main()
