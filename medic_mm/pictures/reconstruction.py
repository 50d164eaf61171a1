"""What a model makes of masked images: pixels, as they can be shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmpretrain.models import MAE, MAEPretrainHead
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor

_HIDDEN_GREY = 0.55


@dataclass(frozen=True)
class View:
    """Images with one part hidden, and that part predicted.

    RGB in 0..1, ``(N, 3, H, W)`` each; hidden and missing patches are grey.

    Attributes:
        hidden: What the view hides, bool ``(N, L)``.
        masked: The input without the hidden patches.
        reconstructed: Predicted pixels at hidden patches, the input elsewhere.
        alone: Predicted pixels at hidden patches and nothing else.
        guess: As ``reconstructed``, but each hidden patch is its true mean over pixels
            and colours: what one would see of a network that predicts nothing.
        error: ``(N,)``, mean squared error at hidden patches in units of the target:
            shares of a patch's own variance where pixels are per-patch normalised.
    """

    hidden: Tensor
    masked: Tensor
    reconstructed: Tensor
    alone: Tensor
    guess: Tensor
    error: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What a model makes of masked images; RGB in 0..1, ``(N, 3, H, W)`` each.

    Attributes:
        images: The input.
        views: One, or two of which each hides what the other shows.
        joint: With two views, each patch as predicted from the view that hides it.
        means: Each patch as its true mean over pixels and colours.
        per_patch: Whether the predictions were per-patch normalised.
    """

    images: Tensor
    views: tuple[View, ...]
    joint: Tensor | None
    means: Tensor
    per_patch: bool

    @property
    def masked(self) -> Tensor:
        """The input as the first view shows it, hidden patches grey."""
        return self.views[0].masked

    @property
    def reconstructed(self) -> Tensor:
        """Predicted pixels where the first view hides them, the input elsewhere."""
        return self.views[0].reconstructed


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
        model: An algorithm with a pixel decoder and ``predict_pixels``
            (``medic_mm.MEDiC``, ``medic_mm.MIMHD``), or the host's ``MAE``.
        batch: A collated batch as for training: raw ``inputs`` and ``data_samples``,
            with masks where the model does not draw them itself.

    Raises:
        ValueError: for a model without a pixel decoder, or of another kind.
    """
    if not isinstance(model, MAE) and not hasattr(model, 'predict_pixels'):
        raise ValueError(
            f'{type(model).__name__} has no pixels to show: give a config of MEDiC, '
            'MIM-HD or MAE'
        )
    if not model.with_neck:
        raise ValueError(
            'the model has no pixel decoder, so there is nothing to reconstruct: give '
            "the pixel term a weight (model.head.weights['pixel'])"
        )
    model.eval()
    data = model.data_preprocessor(batch, False)
    images = data['inputs']
    predicted, hidden, head = _predict(model, images, data['data_samples'])
    plain = images.new_zeros(3, 1, 1)  # without statistics nothing is normalised
    std = getattr(model.data_preprocessor, 'std', plain + 1)
    mean = getattr(model.data_preprocessor, 'mean', plain)
    if hasattr(model, 'pixel_space'):  # a frozen decoder predicts in its own statistics
        images, mean, std = model.pixel_space(images)
    squared = (predicted - head.construct_target(images)).square().mean(-1)  # (N, L)
    patches = head.patchify(images)
    if head.norm_pix:
        predicted = restore_patches(predicted, patches)
    pixels = _Patches(head, mean, std)
    # one number for all pixels and colours of a patch, as in the target
    means = patches.mean(-1, keepdim=True).expand_as(patches)
    masks = [hidden, ~hidden] if getattr(model.neck, 'views', 1) == 2 else [hidden]
    return Reconstruction(
        images=pixels.show(patches),
        views=tuple(pixels.view(m, patches, predicted, means, squared) for m in masks),
        joint=pixels.show(predicted) if len(masks) == 2 else None,
        means=pixels.show(means),
        per_patch=head.norm_pix,
    )


def _predict(
    model: BaseSelfSupervisor, images: Tensor, samples: list[DataSample]
) -> tuple[Tensor, Tensor, MAEPretrainHead]:
    """Pixels ``(N, L, p * p * 3)``, what is hidden ``(N, L)``, and the pixel head."""
    if isinstance(model, MAE):
        tokens, mask, restore = model.backbone(images)
        return model.neck(tokens, restore), mask.bool(), model.head
    predicted, mask = model.predict_pixels(images, samples)
    return predicted, mask, model.head.pixel_loss


@dataclass(frozen=True)
class _Patches:
    """From normalised patches ``(N, L, p * p * 3)`` to pictures.

    Attributes:
        head: Owner of the order of a patch's pixels.
        mean: Of the normalisation, ``(3, 1, 1)``.
        std: Likewise.
    """

    head: MAEPretrainHead
    mean: Tensor
    std: Tensor

    def show(self, patches: Tensor) -> Tensor:
        pictures = self.head.unpatchify(patches) * self.std + self.mean
        return (pictures / 255).clamp(0, 1).cpu()

    def view(
        self,
        mask: Tensor,
        patches: Tensor,
        predicted: Tensor,
        means: Tensor,
        squared: Tensor,
    ) -> View:
        hidden = mask.unsqueeze(-1)
        spread = self.head.unpatchify(hidden.expand_as(patches).float())
        covered = spread.cpu() > 0
        return View(
            hidden=mask.cpu(),
            masked=self.show(patches).masked_fill(covered, _HIDDEN_GREY),
            reconstructed=self.show(torch.where(hidden, predicted, patches)),
            alone=self.show(predicted).masked_fill(~covered, _HIDDEN_GREY),
            guess=self.show(torch.where(hidden, means, patches)),
            error=((squared * mask).sum(1) / mask.sum(1)).cpu(),
        )
