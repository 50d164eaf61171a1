"""Evaluate a pre-trained backbone by a linear probe (and k-NN) on frozen features.

    python tools/linear_probe.py CONFIG CHECKPOINT --out report.json

Each image is encoded once, without augmentation; the learning rate is chosen on a tenth
of the training images of each class. The data are found as for tools/knn.py. CHECKPOINT
may be the word ``random``: the backbone before training, for comparison.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.logging import MMLogger

from medic_mm.cli.linear_probe import (
    FEATURES,
    evaluate_linear,
    format_linear_report,
)
from medic_mm.evaluation.linear_probe import LEARNING_RATES
from medic_mm.settings.arguments import add_config_options
from medic_mm.settings.cli import sentences_for_users
from medic_mm.settings.run_config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help="file with weights, or 'random'")
    parser.add_argument(
        '--features', nargs='+', choices=FEATURES, default=list(FEATURES)
    )
    parser.add_argument(
        '--blocks', action='store_true', help='probe every block, not the last alone'
    )
    parser.add_argument(
        '--lr', type=float, nargs='+', default=list(LEARNING_RATES), dest='lrs'
    )
    parser.add_argument('--epochs', type=int, default=50)
    parser.add_argument(
        '--k', type=int, nargs='*', default=[20], help='k-NN too; no number: none'
    )
    parser.add_argument('--out', type=Path, help='write the report as JSON here')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda:0, ...')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # the hosts tell of every weight that they draw: warnings will do here
    MMLogger.get_instance('linear_probe', log_level='WARNING')
    with sentences_for_users():
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
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
