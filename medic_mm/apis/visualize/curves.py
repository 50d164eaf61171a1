"""Curves of training runs side by side: ``visualize.py curves``."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medic_mm.apis.visualize.common import Drawn, save_figure
from medic_mm.errors import UserError
from medic_mm.visualization.curves import find_logs, read_curves
from medic_mm.visualization.run_curves import Run, compare_runs, draw_runs

_SUFFIXES = ('.png', '.pdf', '.svg')


def visualize_curves(
    runs: Sequence[str | Path], out: str | Path, labels: Sequence[str] | None = None
) -> Drawn:
    """Draw losses, k-NN accuracy, learning rate, throughput and gradient norm of runs.

    Args:
        runs: Work folders of ``tools/train.py``.
        out: File to write (``.png``, ``.pdf`` or ``.svg``), or a folder for
            ``curves.png``.
        labels: A name for each run. Default: the names of the folders.

    Raises:
        UserError: for a folder without a log, labels that do not fit the runs, or a
            file of another suffix.
    """
    path = _output(Path(out))
    names = _names(runs, labels)
    try:
        found = [
            Run(name, read_curves(run), batch_size_of(run))
            for name, run in zip(names, runs, strict=True)
        ]
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    panels = compare_runs(found)
    if not panels:
        raise UserError(
            f'the logs of {", ".join(map(str, runs))} have no losses, k-NN accuracies '
            'or times to draw'
        )
    figure = Figure()
    draw_runs(figure, panels, names)
    return Drawn([save_figure(figure, path)], [])


def batch_size_of(run: str | Path) -> int | None:
    """Images in one iteration of the newest run in a work folder.

    Read from the config that it wrote, without running it. None where that is not there
    or does not say it; with several processes too, since their number is not in it.
    """
    logs = find_logs(run)
    file = logs[-1].with_name('config.py') if logs else None
    if file is None or not file.is_file():
        return None
    values: dict[str, ast.expr] = {}
    for node in ast.parse(file.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
    loader = values.get('train_dataloader')
    if _constant(values.get('launcher')) != 'none' or not isinstance(loader, ast.Call):
        return None
    given = [k.value for k in loader.keywords if k.arg == 'batch_size']
    return _constant(given[0]) if given else None


def _constant(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def _output(out: Path) -> Path:
    if out.is_dir() or not out.suffix:
        return out / 'curves.png'
    if out.suffix not in _SUFFIXES:
        raise UserError(
            f'--out {out}: give a folder, or a file ending in {", ".join(_SUFFIXES)}'
        )
    return out


def _names(runs: Sequence[str | Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each run: the folder's, with as many parents as tell them apart."""
    if labels is not None:
        if len(labels) != len(runs):
            raise UserError(
                f'--labels has {len(labels)} names for {len(runs)} runs: give one for '
                'each'
            )
        names = list(labels)
    else:
        paths = [Path(run).resolve() for run in runs]
        depth = 1
        names = [path.name for path in paths]
        while len(set(names)) < len(set(paths)):
            depth += 1
            names = ['/'.join(path.parts[-depth:]) for path in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'two runs are called {twice[0]!r}: give each its own label')
    return names
