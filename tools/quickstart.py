"""From nothing to a pre-trained student in minutes, on a CPU, without a download.

Trains a teacher on a built-in data set (a tiny CLIP for MEDiC, a small MAE for MIM-HD),
pre-trains a tiny student from it, compares both by k-NN with a random student and with
raw pixels, draws a picture, and shows the run in one HTML page.
A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medic_mm.cli.main import sentences_for_users
from medic_mm.quickstart.program import METHODS, Quickstart

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--method', choices=METHODS, default='medic')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder for all results (default: work_dirs/quickstart, or '
        'work_dirs/quickstart-METHOD for a method other than medic)',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='remove earlier results and start over'
    )
    args = parser.parse_args()
    if args.work_dir is None:
        suffix = '' if args.method == 'medic' else f'-{args.method}'
        args.work_dir = Path(f'work_dirs/quickstart{suffix}')
    return args


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        quickstart = Quickstart(ROOT, args.work_dir, args.method)
        if args.fresh:
            quickstart.start_over()
        table = quickstart.run()
    least = METHODS[args.method].least_gain
    if table.gain < least:
        raise SystemExit(
            f'error: that is less than the {least} points that the quickstart stands '
            'for: please report it with the log'
        )


if __name__ == '__main__':
    main()
