"""What the CIFAR-10 tables share: runs that are skipped once done, and their rows."""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from medic_mm.cli.knn import evaluate_knn

ROOT = Path(__file__).resolve().parents[1]
K = 20
HEAD = [
    '| features of | class token | mean patch | seeds | training |',
    '|---|---:|---:|---:|---:|',
]


def knn_hook(cfg: Config) -> dict:
    """The settings of the config's k-NN hook."""
    return next(h for h in cfg.custom_hooks if h.type == 'medic_mm.KNNHook')


def set_data(cfg: Config, data: Path, per_class: int | None = None) -> None:
    """Read images from ``data``; of training images so many a class.

    They are the first ones by name, as the tables of the README were measured: the
    files of a class of CIFAR-10 are in no order.
    """
    knn = knn_hook(cfg)
    datasets = [
        loader.dataset
        for loader in (cfg.train_dataloader, knn.train_dataloader, knn.test_dataloader)
    ]
    for dataset in datasets:
        dataset.data_root = str(data)
    if per_class is not None:
        for dataset in datasets[:2]:
            dataset.update(per_class=per_class, draw_seed=None)


def train(cfg: Config, folder: Path, watch: bool = False) -> dict:
    """Train in a process of its own, then evaluate the last checkpoint.

    Args:
        cfg: The whole config.
        folder: Work folder; a training that was cut off goes on there.
        watch: Keep the k-NN hook during training. The small protocol looks at the end
            only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = copy.deepcopy(cfg)
    if not watch:
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
    return dict(
        evaluate_knn(cfg, last_checkpoint(folder), ks=[K]), training_seconds=seconds
    )


def last_checkpoint(folder: Path) -> str:
    """Path of the newest checkpoint of a run."""
    return (folder / 'last_checkpoint').read_text().strip()


def run(name: str, folder: Path, work: Callable[[], dict]) -> dict:
    """Do a piece of work once; its result is kept in ``result.json``."""
    path = folder / 'result.json'
    if not path.is_file():
        print(f'--- {name} -> {folder}', flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix('.part')
        fresh.write_text(json.dumps(work(), indent=2))
        fresh.replace(path)  # at once: other processes may read it
    return json.loads(path.read_text())


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
