"""The MIM-HD table of the README: CIFAR-10, one MAE teacher trained here, on a CPU.

    python benchmarks/cifar10_mimhd.py --data CIFAR10

First trains the teacher (``configs/mae``, all 10,000 images, 20 epochs), then each row
by the small protocol: 5,000 images (500 a class), 12 epochs, k-NN of the last
checkpoint. Each run has a folder in ``--out`` and is skipped once its ``result.json``
is there, so that an interrupted table goes on where it stopped. ``table.md`` is written
anew after each row. ``--seeds`` are the seeds of the rows named in :data:`REPEATED`;
the others use the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cifar10_runs import (
    HEAD,
    ROOT,
    K,
    knn_hook,
    last_checkpoint,
    row,
    run,
    set_data,
    train,
)
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from medic_mm.cli.knn import evaluate_knn
from medic_mm.evaluation.features import (
    PixelEncoder,
    count_classes,
    extract_features,
)
from medic_mm.evaluation.knn_metrics import knn_metrics

CONFIGS = ROOT / 'configs'
NAME = 'vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'
TEACHER = 'mae/mae_vit-w256-d6-h8-p8_1xb100-coslr-20e_cifar10-64px.py'
#: Row of the table to its config.
ROWS = {
    'MIM-HD': f'mimhd/mimhd_{NAME}',
    'TinyMIM (adaptive block)': f'tinymim/tinymim_{NAME}',
    'MIM-HD, relations only': f'mimhd/mimhd-relations_{NAME}',
    'MIM-HD + sinkhorn': f'mimhd/mimhd-sinkhorn_{NAME}',
    'average heads': f'mimhd/mimhd-average_{NAME}',
    'select heads': f'mimhd/mimhd-select_{NAME}',
    'relation heads': f'mimhd/mimhd-relheads_{NAME}',
    "MAE of the student's size": f'mae/mae_{NAME}',
}
REPEATED = (
    'TinyMIM (adaptive block)',
    'MIM-HD, relations only',
    'MIM-HD',
    'MIM-HD + sinkhorn',
)


def make_teacher(args: argparse.Namespace) -> tuple[dict, str]:
    """Train the MAE once; returns its k-NN and the path of its checkpoint."""
    cfg = Config.fromfile(CONFIGS / TEACHER)
    set_data(cfg, args.data)
    folder = args.out / 'teacher'
    run('MAE teacher', folder / 'training', lambda: train(cfg, folder / 'training'))
    checkpoint = last_checkpoint(folder / 'training')
    # as the rows are scored, on 500 training images a class
    set_data(cfg, args.data, 500)
    found = run(
        'MAE teacher, k-NN',
        folder / 'knn',
        lambda: evaluate_knn(cfg, checkpoint, ks=[K]),
    )
    return found, checkpoint


def configure(args: argparse.Namespace, config: str, teacher: str, seed: int) -> Config:
    """A row's config with this run's data, teacher, seed and protocol."""
    cfg = Config.fromfile(CONFIGS / config)
    set_data(cfg, args.data, 500)
    if 'target_generator' in cfg.model:
        cfg.model.target_generator.weights = teacher
    cfg.randomness.seed = seed
    return cfg


def pixels(cfg: Config) -> dict:
    """k-NN of raw pixels on the data of ``cfg``."""
    init_default_scope(cfg.default_scope)
    knn = knn_hook(cfg)
    loaders = [
        Runner.build_dataloader(loader, seed=0)
        for loader in (knn.train_dataloader, knn.test_dataloader)
    ]
    preprocessor = MODELS.build(cfg.data_preprocessor)
    features = [extract_features(PixelEncoder(), preprocessor, one) for one in loaders]
    num_classes = count_classes(*(loader.dataset for loader in loaders))
    return knn_metrics(*features, num_classes, [K], 0.07, 'cpu')


def make_table(args: argparse.Namespace) -> None:
    """Run what is missing; write the table after each row."""
    found, teacher = make_teacher(args)
    first = args.seeds[0]
    base = configure(args, ROWS['MIM-HD'], teacher, first)
    random = run(
        'random network',
        args.out / 'random',
        lambda: evaluate_knn(base, 'random', ks=[K]),
    )
    raw = run('raw pixels', args.out / 'pixels', lambda: pixels(base))
    raw = raw['pixels'][f'top1_k{K}']
    lines = [
        *HEAD,
        row('random network', [random]),
        f'| raw pixels | {raw:.1f} | - | - | - |',
        row('MAE teacher', [found]),
    ]
    done: dict[str, list[dict]] = {}
    for seed in args.seeds:
        for name, config in ROWS.items():
            if seed != first and name not in REPEATED:
                continue
            if args.rows and name not in args.rows:
                continue
            cfg = configure(args, config, teacher, seed)
            place = args.out / f'{Path(config).name.split("_")[0]}-{seed}'
            result = run(
                f'{name}, seed {seed}', place, lambda c=cfg, p=place: train(c, p)
            )
            done.setdefault(name, []).append(result)
            table = [*lines, *(row(*item) for item in done.items())]
            (args.out / 'table.md').write_text('\n'.join(table) + '\n')
    print((args.out / 'table.md').read_text(), flush=True)


def main() -> None:
    """Parse, run what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='CIFAR-10 folders')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/cifar10_mimhd'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--rows', nargs='+', choices=ROWS, help='default: all')
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    make_table(args)


if __name__ == '__main__':
    main()
