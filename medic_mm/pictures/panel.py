"""One picture of a model at work: inputs, masks, reconstructions, features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmpretrain.models.selfsup import MAE, BaseSelfSupervisor
from torch import Tensor, nn

from medic_mm.models.teachers import FrozenTeacher
from medic_mm.pictures.features import pca_colours
from medic_mm.pictures.patch_tokens import (
    PatchTokens,
    student_tokens,
    teacher_tokens,
)
from medic_mm.pictures.reconstruction import reconstruct

#: Inches of a cell of the panel, and its resolution.
_CELL = 1.1
_DOTS_PER_INCH = 100
_HIDDEN_GREY = 0.55


@dataclass(frozen=True)
class Panel:
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
    rows: dict[str, Tensor] = {}
    per_patch = False
    if decodes(model):
        found = reconstruct(model, batch)
        rows = {
            'input': found.images,
            'masked': found.masked,
            'recon-\nstruction': found.reconstructed,
        }
        per_patch = found.per_patch
    data = model.data_preprocessor(batch, False)
    images = data['inputs']
    if not rows:
        rows = _inputs(model, images, data['data_samples'])
    tokens = student_tokens(model.backbone, images)
    rows['student\nfeatures'] = _coloured(tokens)
    guide = find_teacher(model) if teacher else None
    if guide is not None:
        preprocessor = model.data_preprocessor
        tokens = teacher_tokens(guide, images, preprocessor.mean, preprocessor.std)
        name = 'values' if guide.gives_relations else 'features'
        rows[f'teacher\n{name}'] = _coloured(tokens)
    return Panel(rows, per_patch)


def decodes(model: nn.Module) -> bool:
    """Whether a model reconstructs pixels that can be shown."""
    known = isinstance(model, MAE) or hasattr(model, 'predict_pixels')
    return known and model.with_neck


def find_teacher(model: nn.Module) -> FrozenTeacher | None:
    """The model's own teacher, behind a cache too; None where there is none of ours."""
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
    axes = figure.subplots(len(panel.rows), count, squeeze=False)
    for cells, (name, pictures) in zip(axes, panel.rows.items(), strict=True):
        cells[0].set_ylabel(
            name, rotation=0, ha='right', va='center', labelpad=8, fontsize=11
        )
        for axis, picture in zip(cells, pictures, strict=True):
            axis.imshow(
                picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation='nearest'
            )
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=12, weight='bold')
    figure.supxlabel(_note(panel), fontsize=9, color='#444444')


def render_panel(panel: Panel, title: str) -> np.ndarray:
    """A panel as RGB uint8 ``(H, W, 3)``, for the visualisation backends."""
    figure = Figure(dpi=_DOTS_PER_INCH, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    draw_panel(figure, panel, title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _note(panel: Panel) -> str:
    words = ['Features: three principal components of the patch tokens as colours.']
    if panel.per_patch:
        words.append('Predicted patches get their true mean and contrast back.')
    return '\n'.join(words)


def _inputs(model: nn.Module, images: Tensor, samples: list) -> dict[str, Tensor]:
    """The images, and the images with their masks, where the samples have some."""
    plain = images.new_zeros(3, 1, 1)
    mean = getattr(model.data_preprocessor, 'mean', plain)
    std = getattr(model.data_preprocessor, 'std', plain + 1)
    shown = ((images * std + mean) / 255).clamp(0, 1).cpu()
    rows = {'input': shown}
    if samples and all('mask' in sample for sample in samples):
        masks = torch.stack([torch.as_tensor(sample.mask) for sample in samples])
        enlarged = nn.functional.interpolate(
            masks[:, None].float().cpu(), shown.shape[-2:]
        )
        rows['masked'] = torch.where(enlarged > 0, _HIDDEN_GREY, shown)
    return rows


def _coloured(tokens: PatchTokens) -> Tensor:
    return pca_colours(tokens.values, tokens.grid).permute(0, 3, 1, 2)
