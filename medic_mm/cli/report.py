"""Make one HTML page of a run, which needs no network and no other file.

    medic-mm report WORK_DIR [--out FILE]

WORK_DIR is the folder of the training; the run may be finished, going on or broken off.
The page has the curves, the panels of medic_mm.PanelHook, k-NN, results of evaluations,
what the run changes in its config, the environment, and warnings.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from medic_mm.cli.main import root_folder
from medic_mm.runs.report import FILE_NAME, make_report


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('work_dir', type=Path, help='folder of the run')
    add('--out', type=Path, help=f'the page (default: {FILE_NAME} in WORK_DIR)')
    add(
        '--config',
        type=Path,
        help='config to compare the settings with (default: the one below configs '
        'that has the same name)',
    )
    add(
        '--results',
        type=Path,
        nargs='+',
        default=[],
        metavar='FILE',
        help='more JSON files of evaluate.py, knn.py or linear_probe.py to show',
    )


def run(args: Namespace) -> None:
    """Write the page and print where it is."""
    print(f'wrote {make_report(**vars(args), root=root_folder())}')
