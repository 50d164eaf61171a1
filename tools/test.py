"""Test a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``.

With several processes: ``bash tools/dist_test.sh CONFIG CHECKPOINT GPUS``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from medic_mm.cli.test import run_testing
from medic_mm.settings.arguments import add_config_options
from medic_mm.settings.cli import sentences_for_users
from medic_mm.settings.run_config import LAUNCHERS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run the test loop of a config.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='folder for logs; default: work_dirs/<config name>'
    )
    parser.add_argument(
        '--out', help='file for the metrics (.json, .yaml) or the predictions (.pkl)'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test on several views of each image, as tta_pipeline and tta_model say',
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='no pinned memory in dataloaders'
    )
    add_config_options(parser, ', e.g. test_dataloader.batch_size=64')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none')
    # older launchers pass the rank as an argument
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@record
def main() -> None:
    args = parse_args()
    with sentences_for_users():
        run_testing(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            out=args.out,
            tta=args.tta,
            pin_memory=not args.no_pin_memory,
            options=args.cfg_options,
            data_root=args.data_root,
            launcher=args.launcher,
            tools=Path(sys.argv[0]).parent,
        )


if __name__ == '__main__':
    main()
