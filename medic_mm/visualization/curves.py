"""Curves of a training run, from the scalars that MMEngine writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

#: Distinct in grey and for colour-blind readers (Okabe and Ito).
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MUTED = '#555555'

Curve = list[tuple[float, float]]


def read_curves(work_dir: str | Path) -> dict[str, Curve]:
    """All scalars that runs in a work folder logged through ``LocalVisBackend``.

    A resumed run continues the curves from its first step on: what the run before it
    had logged of later steps is dropped. So is the last line of a log that ended in the
    middle of it.

    Args:
        work_dir: The folder given to ``tools/train.py --work-dir``, or one run's folder
            in it.

    Returns:
        Name to (step, value) pairs in the order of steps. Steps are as logged:
        iterations for losses, epochs for ``knn/*``.

    Raises:
        FileNotFoundError: for a folder without such a log.
        ValueError: for a log that is none of MMEngine's; it names the line.
    """
    files = find_logs(work_dir)
    if not files:
        raise FileNotFoundError(
            f'{work_dir} has no scalars of a run (*/vis_data/scalars.json): train with '
            "vis_backends=[dict(type='LocalVisBackend')] and this work folder first"
        )
    curves: dict[str, dict[float, float]] = {}
    for file in files:
        logged: dict[str, dict[float, float]] = {}
        for record in _records(file):
            step = record.pop('step')
            for name, value in record.items():
                if isinstance(value, (int, float)):
                    logged.setdefault(name, {})[step] = value
        for name, points in logged.items():
            first = min(points)
            before = curves.get(name, {})
            curves[name] = {k: v for k, v in before.items() if k < first} | points
    return {name: sorted(points.items()) for name, points in curves.items()}


def find_logs(work_dir: str | Path) -> list[Path]:
    """Files of the scalars of all runs in a work folder, or of one run by its own."""
    here = Path(work_dir) / 'vis_data' / 'scalars.json'
    runs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    return runs or ([here] if here.is_file() else [])


def _records(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record['step']
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # a run that was killed while it wrote
                return
            raise ValueError(
                f'line {number} of {file} is no JSON record with a step, as '
                'LocalVisBackend writes them'
            ) from error
        yield record


def draw_curves(
    axis: Axes,
    curves: dict[str, Curve],
    levels: dict[str, float] | None = None,
    markers: bool = False,
    log: bool = False,
    from_zero: bool = False,
) -> None:
    """Lines with their names at the right end, without a legend to look up.

    Args:
        axis: Where to draw.
        curves: Label to points.
        levels: Label to value of horizontal dashed lines, to compare with.
        markers: Mark each point.
        log: Logarithmic heights.
        from_zero: Let the heights start at 0.
    """
    if log:
        axis.set_yscale('log')
    ends: list[tuple[float, str, str]] = []
    for (label, points), colour in zip(curves.items(), COLOURS, strict=False):
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, color=colour, lw=2, marker='o' if markers else None, ms=4)
        ends.append((ys[-1], label, colour))
    for label, level in (levels or {}).items():
        axis.axhline(level, color=_MUTED, lw=1.2, ls=(0, (4, 3)))
        ends.append((level, label, _MUTED))
    tidy_axis(axis, from_zero)
    _label_ends(axis, ends)


def tidy_axis(axis: Axes, from_zero: bool = False) -> None:
    """Leave of the frame what helps to read the lines, after they are drawn.

    Args:
        axis: An axis with its lines.
        from_zero: Let the heights start at 0.
    """
    axis.margins(x=0.02)
    if from_zero:
        axis.set_ylim(bottom=0)
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(axis='y', color='#dddddd', lw=0.8)
    axis.set_axisbelow(True)


def _label_ends(axis: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write labels right of the axis at their lines' heights, moved apart."""
    # settles limits and the axis' size; a subfigure cannot draw itself
    axis.figure.canvas.figure.draw_without_rendering()
    height = axis.get_window_extent().height
    size = 10.0
    gap = 1.25 * size * axis.figure.dpi / 72 / height
    to_axis = axis.transData + axis.transAxes.inverted()
    places = sorted(
        (to_axis.transform((0, value))[1], label, colour)
        for value, label, colour in ends
    )
    lowest = -1.0
    for place, label, colour in places:
        lowest = max(place, lowest + gap)
        axis.text(
            1.02,
            lowest,
            label,
            transform=axis.transAxes,
            color=colour,
            fontsize=size,
            va='center',
        )
