"""The quickstart's picture: curves above, reconstructions below."""

from __future__ import annotations

import copy
import textwrap
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, init_default_scope

from medic_mm.evaluation.loaders import find_dataloaders
from medic_mm.pictures.inputs import open_model
from medic_mm.pictures.reconstruction import (
    NORMALISED_NOTE,
    Reconstruction,
    draw_reconstruction,
    reconstruct,
)
from medic_mm.quickstart.table import Table
from medic_mm.runs.charts import Curve, draw_curves
from medic_mm.runs.curves import FEATURES
from medic_mm.runs.run import read_run
from medic_mm.sampling import in_turns

IMAGES = 8


def make_picture(
    config: Config, checkpoint: Path, table: Table, method: str, seen: str, path: Path
) -> None:
    """Draw a finished pre-training.

    Args:
        config: Config of the pre-training.
        checkpoint: Its last checkpoint, in the work folder that has the log.
        table: For the levels to compare with.
        method: The method's name, for the title.
        seen: Who sees the masked images, for the title below.
        path: Where the picture goes; the suffix gives its format.
    """
    curves = read_run(checkpoint.parent).curves
    reconstruction, names = reconstruct_validation(config, checkpoint)
    figure = Figure(figsize=(13, 10.4), dpi=110, facecolor='white')
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.32))
    draw_training(top, curves, table, method)
    draw_reconstruction(bottom, reconstruction, names)
    bottom.subplots_adjust(0.09, 0.11, 0.985, 0.87, wspace=0.05, hspace=0.05)
    bottom.suptitle(
        f'Validation images: what {seen} sees, and what becomes of the rest',
        x=0.045,
        ha='left',
        weight='bold',
    )
    if reconstruction.per_patch:
        note = textwrap.fill(NORMALISED_NOTE, 130)
        bottom.text(0.09, 0.015, note, fontsize=11, color='#444444', va='bottom')
    figure.savefig(path)


def draw_training(
    figure: SubFigure, curves: dict[str, Curve], table: Table, method: str
) -> None:
    """Loss terms on the left, k-NN on the right."""
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.065, 0.15, 0.87, 0.83, wspace=0.5)
    terms = {
        name.removeprefix('raw_'): curve
        for name, curve in curves.items()
        if name.startswith('raw_')
    }
    draw_curves(left, terms, log=True)
    left.set(xlabel='iteration')
    left.set_title('Loss terms, unweighted', loc='left', weight='bold')
    k = table.k
    knn = {
        f'{method}, {label}': curves[f'knn/{name}_top1_k{k}']
        for name, label in FEATURES.items()
        if f'knn/{name}_top1_k{k}' in curves
    }
    teacher, pixels = table.rows[2:]
    levels = {
        f'teacher, {FEATURES[table.feature]}': teacher.top1[table.feature],
        'raw pixels': pixels.top1['pixels'],
    }
    draw_curves(right, knn, levels, markers=True, from_zero=True)
    right.set(xlabel='epoch (0 = random student)')
    right.set_title(f'k-NN accuracy in %, k = {k}', loc='left', weight='bold')


def reconstruct_validation(
    config: Config, checkpoint: Path
) -> tuple[Reconstruction, list[str]]:
    """Validation images, masked as in training, and the names of their classes."""
    init_default_scope(config.default_scope)
    model = open_model(config, str(checkpoint), torch.device('cpu'))
    dataset = copy.deepcopy(find_dataloaders(config)[1]['dataset'])
    dataset['pipeline'] = config.train_dataloader.dataset.pipeline
    images = DATASETS.build(dataset)
    labels = images.get_gt_labels().tolist()
    chosen = in_turns(labels, IMAGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # masks are drawn from the global generator
        batch = default_collate([images[i] for i in chosen])
        reconstruction = reconstruct(model, batch)
    names = [images.metainfo['classes'][labels[i]] for i in chosen]
    return reconstruction, names
