"""Evaluate a pre-trained backbone by k-NN.

    medic-mm knn CONFIG CHECKPOINT --k 10 20 100 200 --out report.json

The data are those of ``medic_mm.KNNHook`` in the config's ``custom_hooks``, or else of
its top-level ``knn_train_dataloader`` and ``knn_test_dataloader``. CHECKPOINT may be
the word ``random``: the backbone before training, for comparison.
"""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from medic_mm.checkpoints.saving import write_json
from medic_mm.errors import UserError
from medic_mm.evaluation.features import (
    Encoder,
    Features,
    TokenEncoder,
    extract_features,
)
from medic_mm.evaluation.knn import check_settings
from medic_mm.evaluation.knn_metrics import knn_metrics
from medic_mm.evaluation.loaders import find_dataloaders, labelled_loaders
from medic_mm.helpers import choose_device
from medic_mm.settings.arguments import add_config_options, add_shared
from medic_mm.settings.run_config import load_config
from medic_mm.settings.student import (
    RANDOM,
    Student,
    load_student,
    require_checkpoint,
    seed_of,
)


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add_shared(parser, 'config', 'checkpoint')
    add = parser.add_argument
    add('--k', type=int, nargs='+', default=[10, 20, 100, 200])
    add('--temperature', type=float, default=0.07)
    add('--features', nargs='+', choices=['cls', 'mean'], default=['cls', 'mean'])
    add_shared(parser, '--out', '--device')
    add_config_options(parser)


def run(args: Namespace) -> None:
    """Evaluate, print the table, write the JSON file."""
    config = load_config(args.config, args.cfg_options, args.data_root)
    report = evaluate_knn(
        config, args.checkpoint, args.k, args.temperature, args.features, args.device
    )
    print(format_report(report))
    if args.out:
        write_json(args.out, report)


def evaluate_knn(
    config: Config,
    checkpoint: str,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    features: Sequence[str] = ('cls', 'mean'),
    device: str = 'auto',
) -> dict[str, Any]:
    """Evaluate a checkpoint's backbone by k-NN.

    Args:
        config: A config of pre-training. Its data for k-NN are those of ``KNNHook`` in
            ``custom_hooks``, or else the top-level ``knn_train_dataloader`` and
            ``knn_test_dataloader``.
        checkpoint: A file with the weights below ``backbone.``, loaded strictly, or
            ``'random'``: weights drawn with the config's ``randomness.seed`` (or 0).
        ks: Numbers of neighbours.
        temperature: Of the weights ``exp(similarity / temperature)``.
        features: ``'cls'``, ``'mean'``, or both.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

    Returns:
        A dictionary fit for JSON: what was evaluated, numbers of images and classes,
        seconds, and ``results``: for each feature and k the ``top1`` and (with more
        than five classes) ``top5`` accuracy in percent; ``rankme`` for each feature.

    Raises:
        UserError: for no such checkpoint, or a config without data for k-NN.
        RuntimeError: for a checkpoint that does not fit; it names the weights.
        ValueError: for data without labels, a backbone without raw tokens, or settings
            out of range.
    """
    start = time.perf_counter()
    check_settings(ks, temperature)
    where = choose_device(device)
    train, test, facts = encode_data(
        config, checkpoint, where, lambda student: TokenEncoder(student, features)
    )
    num_classes = facts['num_classes']
    metrics = knn_metrics(train, test, num_classes, ks, temperature, where)
    broken = [name for name, found in metrics.items() if math.isnan(found['rankme'])]
    if broken:
        raise UserError(
            f'features {", ".join(broken)} of {checkpoint} have NaN or infinite '
            'values: the network diverged'
        )
    return {
        **facts,
        'seed': seed_of(config) if checkpoint == RANDOM else None,
        'device': str(where),
        'temperature': temperature,
        'results': [
            {'features': name, 'k': k}
            | {n: found[f'{n}_k{k}'] for n in ('top1', 'top5') if f'{n}_k{k}' in found}
            for name, found in metrics.items()
            for k in ks
        ],
        'rankme': {name: found['rankme'] for name, found in metrics.items()},
        'seconds': round(time.perf_counter() - start, 2),
    }


def encode_data(
    config: Config,
    checkpoint: str,
    device: torch.device,
    encoder: Callable[[Student], Encoder],
) -> tuple[Features, Features, dict[str, Any]]:
    """Features of the training and test images of a config's k-NN, and facts for JSON.

    Args:
        config: As for :func:`evaluate_knn`.
        checkpoint: As there.
        device: Where the backbone runs.
        encoder: Makes what encodes a batch, from the student with its weights.
    """
    settings = find_dataloaders(config)
    require_checkpoint(checkpoint)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    student = load_student(config, checkpoint).to(device)
    encode = encoder(student)
    loaders, num_classes = labelled_loaders(settings, seed_of(config))
    train, test = (
        extract_features(encode, student.data_preprocessor, loader)
        for loader in loaders
    )
    facts = {
        'config': config.filename,
        'checkpoint': checkpoint,
        'train_images': len(train.labels),
        'test_images': len(test.labels),
        'num_classes': num_classes,
    }
    return train, test, facts


def format_report(report: dict[str, Any]) -> str:
    """A report of :func:`evaluate_knn` as a table for the terminal."""
    lines = [
        f'k-NN of {report["checkpoint"]}: {report["train_images"]} train and '
        f'{report["test_images"]} test images, {report["num_classes"]} classes, '
        f'temperature {report["temperature"]}, {report["seconds"]} s',
        f'{"features":<10}{"k":>6}{"top1":>8}{"top5":>8}',
    ]
    for row in report['results']:
        top5 = f'{row["top5"]:8.2f}' if 'top5' in row else f'{"-":>8}'
        lines.append(f'{row["features"]:<10}{row["k"]:>6}{row["top1"]:8.2f}{top5}')
    return '\n'.join(lines)
