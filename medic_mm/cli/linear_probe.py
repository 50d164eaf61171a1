"""Evaluate a pre-trained backbone by a linear probe (and k-NN) on frozen features.

    medic-mm probe CONFIG CHECKPOINT --out report.json

Each image is encoded once, without augmentation; the learning rate is chosen on a tenth
of the training images of each class. The data are found as for k-NN. CHECKPOINT may be
the word ``random``: the backbone before training, for comparison.
"""

from __future__ import annotations

import itertools
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from medic_mm.checkpoints.saving import write_json
from medic_mm.cli.knn import encode_data
from medic_mm.errors import UserError
from medic_mm.evaluation.features import Features, TokenEncoder
from medic_mm.evaluation.knn_metrics import knn_metrics
from medic_mm.evaluation.linear_probe import LEARNING_RATES, linear_probe
from medic_mm.helpers import choose_device
from medic_mm.settings.arguments import add_config_options, add_shared
from medic_mm.settings.run_config import load_config
from medic_mm.settings.student import seed_of

#: What can be probed: the class token, the mean patch token, both together.
FEATURES = ('cls', 'mean', 'cls+mean')


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add_shared(parser, 'config', 'checkpoint')
    add = parser.add_argument
    add('--features', nargs='+', choices=FEATURES, default=list(FEATURES))
    add('--blocks', action='store_true', help='probe every block, not the last alone')
    add('--lr', type=float, nargs='+', default=list(LEARNING_RATES), dest='lrs')
    add('--epochs', type=int, default=50)
    add('--k', type=int, nargs='*', default=[20], help='k-NN too; no number: none')
    add_shared(parser, '--out', '--device')
    add_config_options(parser)


def run(args: Namespace) -> None:
    """Evaluate, print the table, write the JSON file."""
    report = evaluate_linear(
        load_config(args.config, args.cfg_options, args.data_root),
        args.checkpoint,
        features=args.features,
        blocks=args.blocks,
        lrs=args.lrs,
        epochs=args.epochs,
        ks=args.k,
        device=args.device,
    )
    print(format_linear_report(report))
    if args.out:
        write_json(args.out, report)


class BlockEncoder:
    """Class token and mean patch token of every block of a backbone.

    Blocks before the last have no final norm; their tokens are normalised without
    weights, which the scaling of the columns would undo.

    Args:
        model: An algorithm whose backbone gives raw tokens, with ``out_indices``.
        every: False: of the last block alone.
    """

    def __init__(self, model: nn.Module, every: bool = True) -> None:
        self.module = model
        self._last = TokenEncoder(model)  # refuses a backbone without raw tokens
        self.num_blocks = len(model.backbone.layers)
        self._extra = getattr(model.backbone, 'num_extra_tokens', 1)
        self._every = every
        if every:
            model.backbone.out_indices = list(range(self.num_blocks))

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Encode a batch; names are ``1/cls``, ``1/mean``, ``2/cls``, ..."""
        if not self._every:
            return {f'{self.num_blocks}/{k}': v for k, v in self._last(images).items()}
        found = {}
        for block, tokens in enumerate(self.module.extract_feat(images), start=1):
            tokens = tokens.float()
            if block < self.num_blocks:
                tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
            found[f'{block}/cls'] = tokens[:, 0]
            found[f'{block}/mean'] = tokens[:, self._extra :].mean(dim=1)
        return found


def evaluate_linear(
    config: Config,
    checkpoint: str,
    features: Sequence[str] = FEATURES,
    blocks: bool = False,
    lrs: Sequence[float] = LEARNING_RATES,
    epochs: int = 50,
    ks: Sequence[int] = (20,),
    device: str = 'auto',
) -> dict[str, Any]:
    """Evaluate a checkpoint's backbone by a linear probe, and by k-NN.

    Each image is encoded once, without augmentation, and all probes are trained on
    these features.

    Args:
        config: A config of pre-training; its data are found as for ``evaluate_knn``.
        checkpoint: A file with the weights below ``backbone.``, loaded strictly, or
            ``'random'``.
        features: Which of :data:`FEATURES`.
        blocks: Probe every block, not the last alone.
        lrs: Learning rates to choose from, on held-out training images.
        epochs: Of each probe.
        ks: Numbers of neighbours for k-NN on the last block; none for no k-NN.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

    Returns:
        A dictionary fit for JSON: what was evaluated, numbers of images and classes,
        seconds for encoding and in all; ``linear``: for each block and feature the
        accuracy in percent and the learning rate; ``knn``: as ``evaluate_knn``.

    Raises:
        UserError: for no such checkpoint, another feature, or a config without data.
        RuntimeError: for a checkpoint that does not fit; it names the weights.
        ValueError: for data without labels, or a network that diverged.
    """
    start = time.perf_counter()
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise UserError(f'features={list(features)}: choose from {", ".join(FEATURES)}')
    where = choose_device(device)
    train, test, facts = encode_data(
        config, checkpoint, where, lambda student: BlockEncoder(student, every=blocks)
    )
    encoded = time.perf_counter() - start
    num_classes = facts['num_classes']
    numbers = sorted({int(name.partition('/')[0]) for name in train.values})
    rows = []
    for block, name in itertools.product(numbers, features):
        found = linear_probe(
            _joined(train, name, block),
            train.labels,
            _joined(test, name, block),
            test.labels,
            num_classes,
            lrs,
            epochs,
            seed=seed_of(config),
            device=where,
        )
        rows.append({'block': block, 'features': name, **asdict(found)})
    by_neighbours = []
    if ks:
        last = [
            Features({n: _joined(x, n, numbers[-1]) for n in ('cls', 'mean')}, x.labels)
            for x in (train, test)
        ]
        by_neighbours = [
            {'features': name, 'k': k, 'top1': found[f'top1_k{k}']}
            for name, found in knn_metrics(*last, num_classes, ks, device=where).items()
            for k in ks
        ]
    return {
        **facts,
        'epochs': epochs,
        'linear': rows,
        'knn': by_neighbours,
        'encoding_seconds': round(encoded, 2),
        'seconds': round(time.perf_counter() - start, 2),
    }


def format_linear_report(report: dict[str, Any]) -> str:
    """A report of :func:`evaluate_linear` as a table for the terminal."""
    lines = [
        f'Linear probe of {report["checkpoint"]}: {report["train_images"]} train and '
        f'{report["test_images"]} test images, {report["num_classes"]} classes, '
        f'{report["seconds"]} s ({report["encoding_seconds"]} s for the features)',
        f'{"block":>5}  {"features":<10}{"top1":>8}{"lr":>8}',
    ]
    lines += [
        f'{row["block"]:>5}  {row["features"]:<10}{row["top1"]:8.2f}{row["lr"]:8g}'
        for row in report['linear']
    ]
    lines += [
        f'k-NN   {row["features"]:<10}{row["top1"]:8.2f}   k={row["k"]}'
        for row in report['knn']
    ]
    if len({row['block'] for row in report['linear']}) > 1:
        best = max(report['linear'], key=lambda row: row['held_out_top1'])
        lines.append(
            f'best block by held-out training images: {best["block"]}, '
            f'{best["features"]}, {best["top1"]:.2f}'
        )
    return '\n'.join(lines)


def _joined(found: Features, name: str, block: int) -> Tensor:
    return torch.cat([found.values[f'{block}/{x}'] for x in name.split('+')], dim=1)
