"""Hidden patches and what is predicted for them: ``visualize.py reconstruction``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.runner import set_random_seed
from mmpretrain.models import MAE
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.models.mimhd.algorithm import MIMHD
from medic_mm.pictures.commands.chosen_images import choose_images
from medic_mm.pictures.commands.mask_settings import find_mask_transform, set_mask_ratio
from medic_mm.pictures.commands.whole_model import load_whole
from medic_mm.pictures.common import (
    Drawn,
    choose_device,
    enter_scope,
    require_backbone,
    require_folder,
    save_figure,
)
from medic_mm.pictures.reconstruction import Reconstruction, reconstruct
from medic_mm.pictures.reconstruction_figures import draw_views
from medic_mm.registry import MODELS, TRANSFORMS
from medic_mm.settings.student import RANDOM, require_checkpoint, seed_of

#: More columns would be too small to look at.
_PER_PICTURE = 8


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

    Args:
        config: A config of MEDiC or MIM-HD with a pixel term, or of the host's MAE.
        checkpoint: A file with all weights of the model, or ``'random'``: weights drawn
            with the config's ``randomness.seed`` (or 0). A teacher that takes part
            (MIM-HD's decoder) is loaded as the config says.
        images: Image files, or folders of them; empty for the k-NN test data of the
            config, of which the classes take turns.
        out: Folder to write to: ``reconstruction.png``, and one more for every eight
            images.
        ratio: Share of patches to hide. Default: the config's.
        seed: Of the masks.
        limit: Take at most so many images.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

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
    size = model.backbone.img_size
    inputs, names = choose_images(config, images, size, limit)
    found = _reconstruct(model, inputs, _mask_transform(config), seed)
    return Drawn(_write(found, names, model, folder), [])


def open_model(config: Config, checkpoint: str, device: torch.device) -> nn.Module:
    """The model of a config with all its weights, in eval mode.

    A teacher that has no part in predicting pixels is left out.

    Raises:
        UserError: for a checkpoint that does not fit the model, or a teacher that
            cannot be loaded.
    """
    settings = copy.deepcopy(dict(config.model))
    # the Runner lets a top-level data_preprocessor stand in for the model's own
    settings.setdefault('data_preprocessor', config.get('data_preprocessor'))
    set_random_seed(seed_of(config))
    try:
        model = MODELS.build(settings)
    except ValueError as error:
        raise UserError(f'the model of the config cannot be built: {error}') from error
    teacher = getattr(model, 'target_generator', None)
    if teacher is not None:
        if isinstance(model, MIMHD) or settings.get('masking') is not None:
            _load_teacher(teacher)
        else:
            model.target_generator = None
    if checkpoint == RANDOM:
        model.init_weights()
    else:
        load_whole(model, checkpoint)
    return model.to(device).eval()


def _write(
    found: Sequence[Reconstruction],
    names: Sequence[str],
    model: nn.Module,
    folder: Path,
) -> list[Path]:
    files = []
    for number, reconstruction in enumerate(found):
        figure = Figure()
        first = number * _PER_PICTURE
        titles = names[first : first + len(reconstruction.images)]
        draw_views(figure, reconstruction, titles, *_describe(reconstruction, model))
        suffix = f'_{number + 1}' if number else ''
        files.append(save_figure(figure, folder / f'reconstruction{suffix}.png'))
    return files


def _mask_transform(config: Config) -> Callable | None:
    step = find_mask_transform(config)
    if step is None:
        return None
    try:
        return TRANSFORMS.build(dict(step))
    except ValueError as error:
        raise UserError(str(error)) from error


def _load_teacher(teacher: nn.Module) -> None:
    try:
        teacher.init_weights()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f'the teacher, which the prediction needs, cannot be loaded: {error}'
        ) from error


def _reconstruct(
    model: nn.Module, inputs: Tensor, draw_mask: Callable | None, seed: int
) -> list[Reconstruction]:
    """Reconstructions of eight images each, with the masks of the seed."""
    device = next(model.parameters()).device
    found = []
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)  # masks are drawn from the global generators
        for batch in inputs.split(_PER_PICTURE):
            samples = [DataSample() for _ in batch]
            if draw_mask is not None:
                for sample in samples:
                    sample.set_mask(draw_mask({})['mask'])
            data = dict(inputs=batch, data_samples=samples)
            try:
                found.append(reconstruct(model, data))
            except ValueError as error:
                raise UserError(str(error)) from error
    return found


def _describe(
    reconstruction: Reconstruction, model: nn.Module
) -> tuple[str, list[str]]:
    """A heading, and sentences on who sees what."""
    name = {MIMHD: 'MIM-HD', MAE: 'MAE'}.get(type(model), type(model).__name__)
    hidden = reconstruction.views[0].hidden
    count = f'{int(hidden[0].sum())} of {hidden.shape[1]} patches'
    if not isinstance(model, MIMHD):
        return f'{name}: {count} are hidden, and predicted from the others', []
    note = (
        'The student sees the whole image. A view hides tokens of it from the decoder, '
        'so visible tokens may know of hidden patches.'
    )
    if reconstruction.joint is None:
        return f'{name}: the decoder predicts {count}, hidden from it', [note]
    heading = f'{name}: view 1 hides {count} from the decoder, view 2 the others'
    return heading, [note]
