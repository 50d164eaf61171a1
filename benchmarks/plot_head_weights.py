"""The picture of head weights in docs/mimhd.md, from the logs of MIM-HD runs.

    python benchmarks/plot_head_weights.py --out docs/images/head_weights.png \\
        'MIM-HD=work_dirs/cifar10_mimhd/mimhd-0' \\
        'sinkhorn=work_dirs/cifar10_mimhd/mimhd-sinkhorn-0'
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medic_mm.runs.charts import draw_curves
from medic_mm.runs.run import read_run

PANELS = {
    'entropy': 'Entropy of W, nats',
    'used_heads': 'Teacher heads in use',
    'cos_student': 'Cosine between student heads',
}
RELATIONS = {'qk': 'Q-K', 'vv': 'V-V'}


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('runs', nargs='+', metavar='NAME=WORK_DIR')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    runs = dict(run.split('=', 1) for run in args.runs)
    curves = {name: read_run(Path(folder)).curves for name, folder in runs.items()}
    figure = Figure(figsize=(14, 4.2), dpi=110, facecolor='white')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(PANELS))
    figure.subplots_adjust(0.04, 0.15, 0.9, 0.88, wspace=0.62)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        lines = {
            f'{name}, {label}': found[f'{key}_{relation}']
            for name, found in curves.items()
            for relation, label in RELATIONS.items()
        }
        draw_curves(axis, lines)
        axis.set(xlabel='iteration')
        axis.set_title(title, loc='left', weight='bold')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out)


if __name__ == '__main__':
    main()
