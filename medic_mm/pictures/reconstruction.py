"""Hidden patches and their predicted pixels: ``tools/visualize.py reconstruction``."""

from __future__ import annotations

import copy
import textwrap
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure, FigureBase
from mmengine.config import Config
from mmpretrain.models import MAE
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.helpers import choose_device
from medic_mm.pictures import Drawn, add_images, add_model, add_output, register_picture
from medic_mm.pictures.common import (
    HIDDEN_GREY,
    as_pictures,
    draw_rows,
    enter_scope,
    file_of_page,
    pixel_statistics,
    require_backbone,
    require_folder,
    save_figure,
)
from medic_mm.pictures.inputs import (
    choose_images,
    find_mask_transform,
    open_model,
    set_mask_ratio,
    teacher_decodes,
)
from medic_mm.registry import TRANSFORMS
from medic_mm.settings.student import require_checkpoint

#: More columns would be too small to look at.
_PER_PICTURE = 8
#: Said below every picture of pixels that were predicted per-patch normalised.
NORMALISED_NOTE = (
    'Hidden patches are predicted with mean and contrast taken away; to show them, '
    'each gets its own true mean and standard deviation back. Visible patches are '
    'copied.'
)
_MEANS_NOTE = (
    'The last row shows what these means alone make of the picture: one number for all '
    'pixels and colours of a predicted patch.'
)
_ERROR_NOTE = 'Errors are mean squares over the predicted patches'
_SHARE = ', as a share of the variance within each (1 = no better than its mean).'
_MEANS = 'true means\nonly'
_WITH_ERROR = ('recon-\nstruction', 'from\nview 1', 'from\nview 2')
# inches
_CELL, _GAP, _MARGIN, _EDGE, _HEAD, _LINE = 1.35, 0.26, 1.15, 0.1, 0.66, 0.19


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_reconstruction`."""
    add_model(parser)
    words = "image files, or folders of them; default the config's test data"
    add_images(parser, help=words, nargs='*')
    parser.add_argument(
        '--ratio', type=float, help="share of patches to hide; default the config's"
    )
    parser.add_argument('--seed', type=int, help='of the masks; default 0')
    add_output(parser)


@register_picture(
    'reconstruction', 'hidden patches and the pixels predicted for them', add_arguments
)
def visualize_reconstruction(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    ratio: float | None = None,
    seed: int = 0,
    limit: int = 8,
    device: str = 'auto',
) -> Drawn:
    """Draw images, what is hidden of them, and the pixels predicted for it.

    Writes ``reconstruction.png``, and one more for every eight images, to ``out``.
    Arguments are those of :func:`add_arguments`. ``config`` is one of MEDiC or MIM-HD
    with a pixel term, or of mmpretrain's MAE. The checkpoint has all weights of the
    model; a teacher that takes part (MIM-HD's decoder) is loaded as the config says.
    Without images they are drawn from the k-NN test data, of which classes take turns.

    Raises:
        UserError: for images, weights, a ratio or a model that cannot be used; one
            sentence names what would be right.
    """
    require_backbone(config)
    folder = require_folder(out)
    require_checkpoint(checkpoint)
    enter_scope(config)
    config = copy.deepcopy(config)
    if ratio is not None:
        set_mask_ratio(config, ratio)
    model = open_model(config, checkpoint, choose_device(device))
    inputs, names = choose_images(config, images, model.backbone.img_size, limit)
    try:
        found = _reconstruct_all(model, inputs, find_mask_transform(config), seed)
    except ValueError as error:
        raise UserError(str(error)) from error
    files = []
    for page, reconstruction in enumerate(found):
        figure, first = Figure(), page * _PER_PICTURE
        titles = names[first : first + len(reconstruction.images)]
        draw_views(figure, reconstruction, titles, *_describe(reconstruction, model))
        files.append(save_figure(figure, file_of_page(folder, 'reconstruction', page)))
    return Drawn(files, [])


def _reconstruct_all(
    model: nn.Module, inputs: Tensor, masks: Mapping | None, seed: int
) -> list[Reconstruction]:
    """Reconstructions of eight images each, with the masks of the seed."""
    draw_mask = None if masks is None else TRANSFORMS.build(dict(masks))
    device = next(model.parameters()).device
    found = []
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)  # masks are drawn from the global generators
        for batch in inputs.split(_PER_PICTURE):
            samples = [DataSample() for _ in batch]
            if draw_mask is not None:
                for sample in samples:
                    sample.set_mask(draw_mask({})['mask'])
            found.append(reconstruct(model, dict(inputs=batch, data_samples=samples)))
    return found


def _describe(
    reconstruction: Reconstruction, model: nn.Module
) -> tuple[str, list[str]]:
    """A heading, and sentences on who sees what."""
    name = type(model).__name__
    name = 'MIM-HD' if name == 'MIMHD' else name
    hidden = reconstruction.views[0].hidden
    count = f'{int(hidden[0].sum())} of {hidden.shape[1]} patches'
    if not teacher_decodes(model):
        return f'{name}: {count} are hidden, and predicted from the others', []
    note = (
        'The student sees the whole image. A view hides tokens of it from the decoder, '
        'so visible tokens may know of hidden patches.'
    )
    if reconstruction.joint is None:
        return f'{name}: the decoder predicts {count}, hidden from it', [note]
    heading = f'{name}: view 1 hides {count} from the decoder, view 2 the others'
    return heading, [note]


@dataclass(frozen=True)
class View:
    """Images with one part hidden, and that part predicted.

    RGB in 0..1, ``(N, 3, H, W)`` each; hidden and missing patches are grey.
    """

    hidden: Tensor  # what the view hides, bool (N, L)
    masked: Tensor  # the input without the hidden patches
    reconstructed: Tensor  # predicted pixels at hidden patches, the input elsewhere
    alone: Tensor  # predicted pixels at hidden patches and nothing else
    #: Each hidden patch is its true mean over pixels and colours: what one would see of
    #: a network that predicts nothing.
    guess: Tensor
    #: ``(N,)``, mean squared error at hidden patches in units of the target: shares of
    #: a patch's own variance where pixels are per-patch normalised.
    error: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What a model makes of masked images; RGB in 0..1, ``(N, 3, H, W)`` each.

    The joint prediction of two views has each patch from the view that hides it.
    """

    images: Tensor
    views: tuple[View, ...]  # one, or two of which each hides what the other shows
    joint: Tensor | None
    means: Tensor  # each patch as its true mean over pixels and colours
    per_patch: bool  # whether the predictions were per-patch normalised

    @property
    def three_rows(self) -> dict[str, Tensor]:
        """Input, masked input and reconstruction of the first view, by their names."""
        first = self.views[0]
        shown = (self.images, first.masked, first.reconstructed)
        return dict(zip(('input', 'masked', _WITH_ERROR[0]), shown, strict=True))


def restore_patches(predicted: Tensor, true: Tensor, eps: float = 1e-6) -> Tensor:
    """Give per-patch normalised predictions the true patches' mean and contrast.

    As in MAE's visualisation: a network trained on normalised patches says nothing of
    them. Both are ``(..., p * p * 3)``; ``eps`` is that of the loss's target.
    """
    mean = true.mean(dim=-1, keepdim=True)
    std = (true.var(dim=-1, keepdim=True) + eps).sqrt()
    return predicted * std + mean


def decodes(model: nn.Module) -> bool:
    """Whether a model predicts pixels that can be shown."""
    return _predicts_pixels(model) and model.with_neck


def _predicts_pixels(model: nn.Module) -> bool:
    return isinstance(model, MAE) or hasattr(model, 'predict_pixels')


@torch.no_grad()
def reconstruct(model: BaseSelfSupervisor, batch: dict) -> Reconstruction:
    """Mask images, encode and decode them.

    Args:
        model: One with a pixel decoder and ``predict_pixels``, or mmpretrain's ``MAE``.
        batch: A collated batch as for training: raw ``inputs`` and ``data_samples``,
            with masks where the model does not draw them itself.

    Raises:
        UserError: for a model without a pixel decoder, or of another kind.
    """
    if not _predicts_pixels(model):
        raise UserError(
            f'{type(model).__name__} has no pixels to show: give a config of MEDiC, '
            'MIM-HD or MAE'
        )
    if not model.with_neck:
        raise UserError(
            'the model has no pixel decoder, so there is nothing to reconstruct: give '
            "the pixel term a weight (model.head.weights['pixel'])"
        )
    model.eval()
    data = model.data_preprocessor(batch, False)
    images = data['inputs']
    if isinstance(model, MAE):
        tokens, mask, restore = model.backbone(images)
        predicted, hidden, head = model.neck(tokens, restore), mask.bool(), model.head
    else:
        predicted, hidden = model.predict_pixels(images, data['data_samples'])
        head = model.head.pixel_loss
    mean, std = pixel_statistics(model.data_preprocessor, images)
    if teacher_decodes(model):  # in its own statistics
        images, mean, std = model.pixel_space(images)
    squared = (predicted - head.construct_target(images)).square().mean(-1)  # (N, L)
    patches = head.patchify(images)
    if head.norm_pix:
        predicted = restore_patches(predicted, patches)
    # one number for all pixels and colours of a patch, as in the target
    means = patches.mean(-1, keepdim=True).expand_as(patches)

    def show(pixels: Tensor) -> Tensor:
        return as_pictures(head.unpatchify(pixels), mean, std)

    def look(mask: Tensor) -> View:
        of_pixels = mask.unsqueeze(-1).expand_as(patches)
        covered = head.unpatchify(of_pixels.float()).cpu() > 0
        return View(
            hidden=mask.cpu(),
            masked=show(patches).masked_fill(covered, HIDDEN_GREY),
            reconstructed=show(torch.where(of_pixels, predicted, patches)),
            alone=show(predicted).masked_fill(~covered, HIDDEN_GREY),
            guess=show(torch.where(of_pixels, means, patches)),
            error=((squared * mask).sum(1) / mask.sum(1)).cpu(),
        )

    two = getattr(model.neck, 'views', 1) == 2
    return Reconstruction(
        images=show(patches),
        views=tuple(map(look, [hidden, ~hidden] if two else [hidden])),
        joint=show(predicted) if two else None,
        means=show(means),
        per_patch=head.norm_pix,
    )


def draw_reconstruction(
    figure: FigureBase, reconstruction: Reconstruction, titles: Sequence[str]
) -> None:
    """Input, masked input and reconstruction, with a title above each column."""
    draw_rows(figure, reconstruction.three_rows, titles)


def draw_views(
    figure: Figure,
    reconstruction: Reconstruction,
    titles: Sequence[str],
    heading: str,
    notes: Sequence[str] = (),
) -> None:
    """All rows of :func:`rows_of`, with errors, and notes below; sets the size."""
    rows = rows_of(reconstruction)
    width = max(_CELL * len(titles) + _MARGIN + _EDGE, 6.0)
    below = (_ERROR_NOTE + ', of normalised pixels.',)
    if _MEANS in rows:
        below = (_ERROR_NOTE + _SHARE, NORMALISED_NOTE, _MEANS_NOTE)
    lines = (textwrap.fill(each, int(width * 13.5)) for each in (*notes, *below))
    text = '\n'.join(lines)
    foot = 0.2 + _LINE * (text.count('\n') + 1)
    total = _CELL * len(rows) + _GAP * (len(rows) - 1) + _HEAD + foot
    figure.set_size_inches(width, total)
    axes = draw_rows(figure, rows, titles, title_size=10)
    errors = [view.error for view in reconstruction.views]
    places = [place for place, name in enumerate(rows) if name in _WITH_ERROR]
    for place, error in zip(places, errors, strict=True):
        for axis, value in zip(axes[place], error.tolist(), strict=True):
            axis.set_xlabel(f'error {value:.2f}', fontsize=9.5, labelpad=1)
    left, right = _MARGIN / width, 1 - _EDGE / width
    bottom, top = foot / total, 1 - _HEAD / total
    figure.subplots_adjust(left, bottom, right, top, wspace=0.04, hspace=_GAP / _CELL)
    left = _EDGE / width
    figure.suptitle(heading, x=left, y=1 - _EDGE / total, ha='left', weight='bold')
    figure.text(left, 0.08 / total, text, fontsize=10, color='#444444', va='bottom')


def rows_of(reconstruction: Reconstruction) -> dict[str, Tensor]:
    """Names of rows to their pictures ``(N, 3, H, W)``, from the top.

    With one view: the input, masked, the reconstruction, and the predicted patches
    alone. With two: both, and the joint prediction, in which each patch comes from the
    view that hides it. For per-patch normalised pixels, last: true means in place of
    predictions.
    """
    if reconstruction.joint is None:
        (view,) = reconstruction.views
        rows = reconstruction.three_rows | {'predicted\nalone': view.alone}
        last = view.guess
    else:
        rows = {'input': reconstruction.images}
        for number, view in enumerate(reconstruction.views, start=1):
            rows[f'view {number}'] = view.masked
            rows[_WITH_ERROR[number]] = view.reconstructed
        rows['both,\npredicted\nalone'] = reconstruction.joint
        last = reconstruction.means
    if reconstruction.per_patch:
        rows[_MEANS] = last
    return rows
