"""Input, masked input and reconstruction of images, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import FigureBase
from mmpretrain.models import MAEPretrainHead
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor

#: Said below every picture of pixels that were predicted per-patch normalised.
NORMALISED_NOTE = (
    'Hidden patches are predicted with mean and contrast taken away; to show them, '
    'each gets its own true mean and standard deviation back. Visible patches are '
    'copied.'
)
_HIDDEN_GREY = 0.55


@dataclass
class Reconstruction:
    """What a model makes of masked images; RGB in 0..1, ``(N, 3, H, W)`` each.

    Attributes:
        images: The input.
        masked: The input, hidden patches grey.
        reconstructed: Predicted pixels at hidden patches, the input elsewhere.
        per_patch: Whether the predictions were per-patch normalised.
    """

    images: Tensor
    masked: Tensor
    reconstructed: Tensor
    per_patch: bool


def restore_patches(predicted: Tensor, true: Tensor, eps: float = 1e-6) -> Tensor:
    """Give per-patch normalised predictions the true patches' mean and contrast.

    As in MAE's visualisation: a network trained on normalised patches says nothing of
    their mean and contrast.

    Args:
        predicted: ``(..., p * p * 3)``, normalised.
        true: Pixels of the same patches.
        eps: Added to the variance, as in the target of the loss.
    """
    mean = true.mean(dim=-1, keepdim=True)
    std = (true.var(dim=-1, keepdim=True) + eps).sqrt()
    return predicted * std + mean


@torch.no_grad()
def reconstruct(model: BaseSelfSupervisor, batch: dict) -> Reconstruction:
    """Mask images, encode and decode them.

    Args:
        model: An algorithm with a pixel decoder and ``predict_pixels``:
            ``medic_mm.MEDiC`` or ``medic_mm.MIMHD`` (what its view 1 hides).
        batch: A collated batch as for training: raw ``inputs`` and ``data_samples``
            with masks.

    Raises:
        ValueError: for a model without a pixel decoder.
    """
    if not model.with_neck:
        raise ValueError(
            'the model has no pixel decoder, so there is nothing to reconstruct: give '
            "the pixel term a weight (model.head.weights['pixel'])"
        )
    model.eval()
    data = model.data_preprocessor(batch, False)
    images = data['inputs']
    predicted, mask = model.predict_pixels(images, data['data_samples'])
    pixel_head: MAEPretrainHead = model.head.pixel_loss
    patches = pixel_head.patchify(images)
    if pixel_head.norm_pix:
        predicted = restore_patches(predicted, patches)
    hidden = mask.unsqueeze(-1)
    mixed = pixel_head.unpatchify(torch.where(hidden, predicted, patches))
    hidden_pixels = pixel_head.unpatchify(hidden.expand_as(patches).float())
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    shown = ((images * std + mean) / 255).clamp(0, 1)
    return Reconstruction(
        images=shown.cpu(),
        masked=torch.where(hidden_pixels > 0, _HIDDEN_GREY, shown).cpu(),
        reconstructed=((mixed * std + mean) / 255).clamp(0, 1).cpu(),
        per_patch=pixel_head.norm_pix,
    )


def draw_reconstruction(
    figure: FigureBase, reconstruction: Reconstruction, titles: list[str]
) -> None:
    """Three rows of pictures: input, masked input, reconstruction.

    Args:
        figure: A figure or subfigure without axes.
        reconstruction: What to draw.
        titles: One per image, written above its column.
    """
    rows = {
        'input': reconstruction.images,
        'masked': reconstruction.masked,
        'recon-\nstruction': reconstruction.reconstructed,
    }
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha='right', va='center', labelpad=10)
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
