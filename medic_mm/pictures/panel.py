"""One picture of a model at work: inputs, masks, reconstructions, features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from medic_mm.models.teachers import FrozenTeacher
from medic_mm.pictures.common import (
    HIDDEN_GREY,
    as_pictures,
    draw_rows,
    pixel_statistics,
)
from medic_mm.pictures.features import (
    PatchTokens,
    pca_colours,
    student_tokens,
    teacher_tokens,
)
from medic_mm.pictures.reconstruction import decodes, reconstruct

#: Inches of a cell of the panel, and its resolution.
_CELL = 1.1
_DOTS_PER_INCH = 100


class Panel(NamedTuple):
    """What a panel shows.

    Attributes:
        rows: Name of a row to RGB pictures in 0..1, ``(N, 3, h, w)``; one height and
            width a row.
        per_patch: Whether a reconstruction is of per-patch normalised pixels.
    """

    rows: dict[str, Tensor]
    per_patch: bool = False


@torch.no_grad()
def make_panel(model: BaseSelfSupervisor, batch: dict, teacher: bool = True) -> Panel:
    """Look at what a model makes of a few images. The model should be in eval mode.

    Rows are the input; the masked input, where the samples have masks or the model
    makes them to reconstruct; the reconstruction, where the model has a pixel decoder;
    and the principal components of the patch tokens of student and teacher, each with
    its own colours.

    Args:
        model: An algorithm with a plain ViT as its backbone.
        batch: A collated batch: raw ``inputs`` and ``data_samples``.
        teacher: Show the teacher, where the model has one of this package. Of
            ``MAETeacher``, which has no tokens to show, the values of its block.

    Raises:
        ValueError: for another backbone, and for what the model itself refuses.
    """
    found = reconstruct(model, batch) if decodes(model) else None
    data = model.data_preprocessor(batch, False)
    images = data['inputs']
    statistics = pixel_statistics(model.data_preprocessor, images)
    if found is not None:
        rows = found.three_rows
    else:
        rows = _inputs(as_pictures(images, *statistics), data['data_samples'])
    rows['student\nfeatures'] = _coloured(student_tokens(model.backbone, images))
    guide: Any = find_teacher(model) if teacher else None
    if guide is not None:
        name = 'values' if guide.gives_relations else 'features'
        tokens = teacher_tokens(guide, images, *statistics)
        rows[f'teacher\n{name}'] = _coloured(tokens)
    return Panel(rows, found is not None and found.per_patch)


def find_teacher(model: nn.Module) -> FrozenTeacher | None:
    """The model's own teacher, behind a cache too; None without one of ours."""
    teacher = getattr(model, 'target_generator', None)
    return teacher.uncached if isinstance(teacher, FrozenTeacher) else None


def draw_panel(figure: Figure, panel: Panel, title: str) -> None:
    """A row for each kind of picture, a column for each image.

    Args:
        figure: A figure without axes; gets its size here.
        panel: What to draw.
        title: For example ``'epoch 10'``.
    """
    count = len(next(iter(panel.rows.values())))
    figure.set_size_inches(_CELL * count + 1.15, _CELL * len(panel.rows) + 0.95)
    figure.set_layout_engine('constrained', w_pad=0.02, h_pad=0.02)
    draw_rows(figure, panel.rows, labelpad=8, fontsize=11)
    figure.suptitle(title, fontsize=12, weight='bold')
    note = 'Features: three principal components of the patch tokens as colours.'
    if panel.per_patch:
        note += '\nPredicted patches get their true mean and contrast back.'
    figure.supxlabel(note, fontsize=9, color='#444444')


def render_panel(panel: Panel, title: str) -> np.ndarray:
    """A panel as RGB uint8 ``(H, W, 3)``, for the visualisation backends."""
    figure = Figure(dpi=_DOTS_PER_INCH, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    draw_panel(figure, panel, title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _inputs(shown: Tensor, samples: list) -> dict[str, Tensor]:
    """The images, and the images with their masks, where the samples have some."""
    rows = {'input': shown}
    if samples and all('mask' in sample for sample in samples):
        masks = torch.stack([torch.as_tensor(sample.mask) for sample in samples])
        masks = masks[:, None].float().cpu()
        covered = nn.functional.interpolate(masks, shown.shape[-2:]) > 0
        rows['masked'] = torch.where(covered, HIDDEN_GREY, shown)
    return rows


def _coloured(tokens: PatchTokens) -> Tensor:
    return pca_colours(tokens.values, tokens.grid).permute(0, 3, 1, 2)
