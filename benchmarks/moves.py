"""Count how often one training step moves from file to file of the package.

``python benchmarks/moves.py`` runs the small MEDiC and MIM-HD of the tests for a step,
preprocessor included, and counts the changes of file between successive calls of the
package's own functions: what a reader of the step has to follow.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT)]


def calls_of(step: Callable[[], object]) -> list[tuple[str, str]]:
    """(file, function) of each call of ours, in order."""
    calls: list[tuple[str, str]] = []
    package = str(ROOT / 'medic_mm')

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == 'call' and code.co_filename.startswith(package):
            file = str(Path(code.co_filename).relative_to(package))
            calls.append((file, getattr(code, 'co_qualname', code.co_name)))

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--list', action='store_true', help='also print each call')
    args = parser.parse_args()

    from mmengine.logging import MMLogger
    from tiny import batch, build_medic
    from tiny_mimhd import build_mimhd, image_batch

    MMLogger.get_instance('moves', log_level=logging.ERROR)
    steps = {
        'MEDiC': (build_medic(), batch()),
        'MIM-HD': (build_mimhd(), image_batch()),
    }
    for name, (model, data) in steps.items():
        model.train()

        def step(model=model, data=data) -> None:
            model(**model.data_preprocessor(data, True), mode='loss')

        calls = calls_of(step)
        files = [file for file, _ in calls]
        moves = sum(one != two for one, two in itertools.pairwise(files))
        functions = len(set(calls))
        print(
            f'{name}: {moves} moves between {len(set(files))} files, '
            f'{functions} functions'
        )
        if args.list:
            print('\n'.join(f'  {file}: {function}' for file, function in calls))


if __name__ == '__main__':
    main()
