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
from pathlib import Path

from cifar10_runs import HEAD, ROOT, K, knn_hook, row, run, set_data, train
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from medic_mm.cli.knn import evaluate_knn
from medic_mm.evaluation.features import (
    PixelEncoder,
    TeacherEncoder,
    count_classes,
    extract_features,
)
from medic_mm.evaluation.knn_metrics import knn_metrics

CONFIG = ROOT / 'configs/medic/medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
TERMS = {
    'token': dict(token=1.0, cls=0.0, pixel=0.0),
    'token + pixel': dict(token=1.0, cls=0.0, pixel=0.01),
    'token + CLS': dict(token=1.0, cls=0.30, pixel=0.0),
    'token + CLS + pixel': dict(token=1.0, cls=0.30, pixel=0.01),
}


def configure(
    args: argparse.Namespace, weights: dict, seed: int, small: bool
) -> Config:
    """The config with this run's data, weights, seed and protocol."""
    cfg = Config.fromfile(CONFIG)
    set_data(cfg, args.data, 500 if small else None)
    cfg.model.head.weights = weights
    cfg.model.target_generator.teacher.weights = str(args.teacher)
    cfg.model.target_generator.cache_dir = str(args.out / 'teacher_cache')
    cfg.randomness.seed = seed
    if small:
        cfg.train_cfg.max_epochs = cfg.param_scheduler[1].end = 12
    return cfg


def untrained(cfg: Config) -> dict:
    """k-NN of raw pixels and of the teacher, on the data of ``cfg``."""
    init_default_scope(cfg.default_scope)
    knn = knn_hook(cfg)
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
    lines = [*HEAD, row('random network', random)]
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
                run(
                    f'{name}, seed {seed}',
                    place,
                    lambda c=cfg, p=place: train(c, p, watch=not small),
                )
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
