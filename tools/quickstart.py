"""From nothing to a pre-trained student in minutes, on a CPU, without a download.

Trains a tiny CLIP as the teacher on a built-in data set, pre-trains a tiny student from
it, compares both by k-NN with a random student and with raw pixels, draws a picture.
A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medic_mm.apis import sentences_for_users
from medic_mm.quickstart.program import LEAST_GAIN, METHODS, Quickstart

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--method', choices=METHODS, default='medic')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/quickstart'),
        help='folder for all results (default: %(default)s)',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='remove earlier results and start over'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        quickstart = Quickstart(ROOT, args.work_dir, args.method)
        if args.fresh:
            quickstart.start_over()
        table = quickstart.run()
    if table.gain < LEAST_GAIN:
        raise SystemExit(
            f'error: that is less than the {LEAST_GAIN} points that the quickstart '
            'stands for: please report it with the log'
        )


if __name__ == '__main__':
    main()
