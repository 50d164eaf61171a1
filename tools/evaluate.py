"""Evaluate a pre-trained checkpoint on all the data there are; writes one table.

    python tools/evaluate.py CHECKPOINT --data data --suite knn,linear

Which student it is, is read from the checkpoint; the benchmark configs that fit it are
found by themselves. CHECKPOINT may be the word ``random``: the student of --config
before training, for comparison. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medic_mm.cli.evaluate import evaluate
from medic_mm.cli.evaluation_plan import SUITE
from medic_mm.settings.cli import sentences_for_users

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help="checkpoint of pre-training, or 'random'")
    parser.add_argument(
        '--data',
        type=Path,
        default=Path('data'),
        metavar='ROOT',
        help='folder that holds cifar10, imagenet, camvid, ADEChallengeData2016, or '
        'some of them (default: data)',
    )
    parser.add_argument(
        '--suite',
        default=','.join(SUITE),
        metavar='TASK,TASK',
        help=f'what to evaluate (default: {",".join(SUITE)})',
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='of the pre-training, where the checkpoint does not carry it',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder for all results (default: below work_dirs/evaluation)',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        default=1,
        metavar='N',
        help='processes that train; learning rates follow (default: 1)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        evaluation = evaluate(
            args.checkpoint,
            root=ROOT,
            data=args.data,
            suite=args.suite.split(','),
            config=args.config,
            out=args.out,
            gpus=args.gpus,
        )
    if evaluation.failed:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
