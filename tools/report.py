"""Tell of a run in one HTML page, which needs no network and no other file.

    python tools/report.py WORK_DIR [--out FILE]

WORK_DIR is the folder of tools/train.py; the run may be finished, going on or broken
off. The page has the curves, the panels of medic_mm.PanelHook, k-NN, results of
evaluations, what the run changes in its config, the environment, and warnings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medic_mm.runs.report import FILE_NAME, make_report
from medic_mm.settings.cli import sentences_for_users

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='folder of the run')
    parser.add_argument(
        '--out', type=Path, help=f'the page (default: {FILE_NAME} in WORK_DIR)'
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='config to compare the settings with (default: the one below configs '
        'that has the same name)',
    )
    parser.add_argument(
        '--results',
        type=Path,
        nargs='+',
        default=[],
        metavar='FILE',
        help='more JSON files of evaluate.py, knn.py or linear_probe.py to show',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        page = make_report(args.work_dir, args.out, args.config, args.results, ROOT)
    print(f'wrote {page}')


if __name__ == '__main__':
    main()
