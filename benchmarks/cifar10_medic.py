"""The CIFAR-10 numbers of the README: MEDiC with a real ViT-S/14 teacher, on a CPU.

    python benchmarks/cifar10_medic.py --data CIFAR10 --teacher vits14.safetensors

Two parts, chosen with ``--part``:

- ``full``: the config as it is, 10,000 images, 20 epochs, the first seed;
- ``table``: the loss table by the small protocol, 5,000 images (500 a class) and 12
  epochs, with rows for raw pixels and the teacher.

Each run has a folder in ``--out`` and is skipped once its ``result.json`` is there, so
that an interrupted table goes on where it stopped. ``table.md`` is written anew each
time from the results that exist.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from medic_mm.apis.knn import evaluate_knn
from medic_mm.evaluation.features import (
    PixelEncoder,
    TeacherEncoder,
    count_classes,
    extract_features,
)
from medic_mm.evaluation.knn_metrics import knn_metrics

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/medic/medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
TERMS = {
    'token': dict(token=1.0, cls=0.0, pixel=0.0),
    'token + pixel': dict(token=1.0, cls=0.0, pixel=0.01),
    'token + CLS': dict(token=1.0, cls=0.30, pixel=0.0),
    'token + CLS + pixel': dict(token=1.0, cls=0.30, pixel=0.01),
}
K = 20


def configure(
    args: argparse.Namespace, weights: dict, seed: int, small: bool
) -> Config:
    """The config with this run's data, weights, seed and protocol."""
    cfg = Config.fromfile(CONFIG)
    knn = next(h for h in cfg.custom_hooks if h.type == 'medic_mm.KNNHook')
    datasets = [
        loader.dataset
        for loader in (cfg.train_dataloader, knn.train_dataloader, knn.test_dataloader)
    ]
    for dataset in datasets:
        dataset.data_root = str(args.data)
    cfg.model.head.weights = weights
    cfg.model.target_generator.teacher.weights = str(args.teacher)
    cfg.model.target_generator.cache_dir = str(args.out / 'teacher_cache')
    cfg.randomness.seed = seed
    if small:
        for dataset in datasets[:2]:
            dataset.per_class = 500
        cfg.train_cfg.max_epochs = cfg.param_scheduler[1].end = 12
    return cfg


def train(cfg: Config, folder: Path) -> dict:
    """Train in a process of its own, then evaluate the last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    training = copy.deepcopy(cfg)
    if cfg.train_cfg.max_epochs < 20:  # the small protocol looks at the end only
        training.custom_hooks = [h for h in cfg.custom_hooks if 'KNN' not in h.type]
    training.dump(folder / 'run.py')
    start = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, ROOT / 'tools/train.py', folder / 'run.py'),
            *('--work-dir', folder, '--resume', 'auto'),
        ],
        check=True,
    )
    seconds = time.perf_counter() - start
    checkpoint = (folder / 'last_checkpoint').read_text().strip()
    return dict(evaluate_knn(cfg, checkpoint, ks=[K]), training_seconds=seconds)


def run(name: str, folder: Path, work) -> dict:
    """Do a piece of work once; its result is kept in ``result.json``."""
    path = folder / 'result.json'
    if not path.is_file():
        print(f'--- {name} -> {folder}', flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(work(), indent=2))
    return json.loads(path.read_text())


def untrained(cfg: Config) -> dict:
    """k-NN of raw pixels and of the teacher, on the data of ``cfg``."""
    init_default_scope(cfg.default_scope)
    knn = next(h for h in cfg.custom_hooks if h.type == 'medic_mm.KNNHook')
    loaders = [
        Runner.build_dataloader(loader, seed=0)
        for loader in (knn.train_dataloader, knn.test_dataloader)
    ]
    preprocessor = MODELS.build(cfg.data_preprocessor)
    teacher = MODELS.build(cfg.model.target_generator.teacher)
    teacher.init_weights()
    num_classes = count_classes(*(loader.dataset for loader in loaders))
    found = {}
    for encode in (PixelEncoder(), TeacherEncoder(teacher, preprocessor)):
        features = [extract_features(encode, preprocessor, one) for one in loaders]
        found.update(knn_metrics(*features, num_classes, [K], 0.07, 'cpu'))
    return found


def accuracy(result: dict, features: str) -> float:
    """Top-1 in percent of one report of ``evaluate_knn``."""
    return next(r['top1'] for r in result['results'] if r['features'] == features)


def row(name: str, results: list[dict]) -> str:
    """One line of the table: mean over seeds, and half the range where there is one."""
    cells = []
    for features in ('cls', 'mean'):
        values = [accuracy(result, features) for result in results]
        spread = (max(values) - min(values)) / 2
        cell = f'{statistics.mean(values):.1f}'
        cells.append(f'{cell} ± {spread:.1f}' if len(values) > 1 else cell)
    minutes = [r['training_seconds'] / 60 for r in results if 'training_seconds' in r]
    time_of = f'{statistics.mean(minutes):.0f} min' if minutes else '-'
    return f'| {name} | {cells[0]} | {cells[1]} | {len(results)} | {time_of} |'


def make_part(args: argparse.Namespace, small: bool) -> list[str]:
    """All rows of one part, run where their results are missing."""
    folder = args.out / ('table' if small else 'full')
    seeds = args.seeds if small else args.seeds[:1]
    terms = TERMS if small else {'token + CLS + pixel': TERMS['token + CLS + pixel']}
    random = [
        run(
            f'random network, seed {seed}',
            folder / f'random-{seed}',
            lambda s=seed: evaluate_knn(
                configure(args, TERMS['token'], s, small), 'random', ks=[K]
            ),
        )
        for seed in seeds
    ]
    lines = [
        '| features of | class token | mean patch | seeds | training |',
        '|---|---:|---:|---:|---:|',
        row('random network', random),
    ]
    if small:
        base = configure(args, TERMS['token'], seeds[0], small)
        rest = run('pixels, teacher', folder / 'untrained', lambda: untrained(base))
        pixels, cls, mean = (
            rest[name][f'top1_k{K}'] for name in ('pixels', 'cls', 'mean')
        )
        lines.append(f'| raw pixels | {pixels:.1f} | {pixels:.1f} | - | - |')
        lines.append(f'| teacher | {cls:.1f} | {mean:.1f} | - | - |')
    for name, weights in terms.items():
        results = []
        for seed in seeds:
            place = folder / f'{name.replace(" + ", "-").lower()}-{seed}'
            cfg = configure(args, weights, seed, small)
            results.append(
                run(f'{name}, seed {seed}', place, lambda c=cfg, p=place: train(c, p))
            )
        lines.append(row(name, results))
    return lines


def main() -> None:
    """Parse, run what is missing, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='CIFAR-10 folders')
    parser.add_argument('--teacher', type=Path, required=True, help='ViT-S/14 file')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/cifar10_medic'))
    parser.add_argument('--part', choices=['full', 'table', 'both'], default='both')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in ('full', 'table') if args.part == 'both' else (args.part,):
        text = '\n'.join(make_part(args, small=part == 'table'))
        (args.out / f'{part}.md').write_text(text + '\n')
        print(text, flush=True)


if __name__ == '__main__':
    main()
