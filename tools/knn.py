"""Evaluate a pre-trained backbone by k-NN.

    python tools/knn.py CONFIG CHECKPOINT --k 10 20 100 200 --out report.json

The data are those of ``medic_mm.KNNHook`` in the config's ``custom_hooks``, or else of
its top-level ``knn_train_dataloader`` and ``knn_test_dataloader``. CHECKPOINT may be
the word ``random``: the backbone before training, for comparison.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.logging import MMLogger

from medic_mm.cli.knn import evaluate_knn, format_report
from medic_mm.settings.arguments import add_config_options
from medic_mm.settings.cli import sentences_for_users
from medic_mm.settings.run_config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help="file with weights, or 'random'")
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100, 200])
    parser.add_argument('--temperature', type=float, default=0.07)
    parser.add_argument(
        '--features', nargs='+', choices=['cls', 'mean'], default=['cls', 'mean']
    )
    parser.add_argument('--out', type=Path, help='write the report as JSON here')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda:0, ...')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # the hosts tell of every weight that they draw: warnings will do here
    MMLogger.get_instance('knn', log_level='WARNING')
    with sentences_for_users():
        report = evaluate_knn(
            load_config(args.config, args.cfg_options, args.data_root),
            args.checkpoint,
            ks=args.k,
            temperature=args.temperature,
            features=args.features,
            device=args.device,
        )
    print(format_report(report))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
