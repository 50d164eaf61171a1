"""What all pictures share: the networks, batches of images, and files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import TwoNormDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.helpers import choose_device
from medic_mm.models.teachers import FrozenTeacher
from medic_mm.registry import MODELS
from medic_mm.settings.student import Student, load_student

_BATCH = 8
_DOTS_PER_INCH = 130


@dataclass(frozen=True)
class Drawn:
    """What was written, and what there is to say about it.

    Attributes:
        files: The pictures.
        notes: Sentences for the user, such as why the teacher is left out.
    """

    files: list[Path]
    notes: list[str]


def require_backbone(config: Config) -> None:
    """Refuse a config that is none of pre-training.

    Raises:
        UserError: where it has no ``model.backbone``.
    """
    if 'backbone' not in (config.get('model') or {}):
        raise UserError('the config has no model.backbone: give one of pre-training')


def require_folder(out: str | Path) -> Path:
    """``out``, which need not exist yet.

    Raises:
        UserError: where it is a file.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f'--out {out} is a file: give a folder')
    return Path(out)


def enter_scope(config: Config) -> None:
    """Let bare names in the config mean what they mean in training."""
    init_default_scope(config.get('default_scope', 'mmpretrain'))


def open_student(config: Config, checkpoint: str, device: str) -> Student:
    """The config's backbone with a checkpoint's weights, in eval mode, on the device.

    Enters the config's scope.

    Raises:
        UserError: for a checkpoint that does not exist or does not fit.
    """
    enter_scope(config)
    try:
        return load_student(config, checkpoint).to(choose_device(device))
    except RuntimeError as error:
        raise UserError(str(error)) from error


def load_teacher(
    config: Config, wanted: str = 'attention'
) -> tuple[FrozenTeacher | None, list[str]]:
    """The config's teacher with its weights; or None and why, as sentences.

    Args:
        config: A config of pre-training, whose scope must be entered.
        wanted: What the picture needs of the teacher, for the sentence.

    Raises:
        UserError: for a teacher whose weights cannot be loaded.
    """
    settings = config.model.get('target_generator')
    if settings is None:
        return None, ['The config has no target_generator, so no teacher is shown.']
    kind = settings['type']
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if found is None or not issubclass(found, FrozenTeacher):
        return None, [
            f'The teacher is left out: {wanted} cannot be read from '
            f'{getattr(found, "__name__", kind)}.'
        ]
    try:
        teacher = MODELS.build(settings)
        teacher.init_weights()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f'the teacher cannot be loaded: {error} (--no-teacher leaves it out)'
        ) from error
    return teacher, []


def normalised(
    preprocessor: nn.Module, inputs: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches as the backbone takes them, and the statistics that made them.

    Args:
        preprocessor: The data preprocessor of a config.
        inputs: uint8 BGR ``(B, 3, H, W)``, as :func:`load_images` gives them.

    Yields:
        Images ``(b, 3, H, W)``, and the means and standard deviations ``(3, 1, 1)``.
    """
    # the host's preprocessor of two views wants both, and the backbone gets the first
    two_views = isinstance(preprocessor, TwoNormDataPreprocessor)
    for batch in inputs.split(_BATCH):
        samples = [DataSample() for _ in batch]
        views = [batch, batch] if two_views else batch
        found = preprocessor(dict(inputs=views, data_samples=samples), False)['inputs']
        images = found[0] if two_views else found
        plain = images.new_zeros(3, 1, 1)  # without statistics nothing is normalised
        mean = getattr(preprocessor, 'mean', plain)
        yield images, mean, getattr(preprocessor, 'std', plain + 1)


def as_pictures(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised images as RGB in 0..1, on the CPU."""
    return ((images * std + mean) / 255).clamp(0, 1).cpu()


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, its folder included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def file_of_image(out: Path, index: int, image: Path) -> Path:
    """The picture of one image: numbered, since images of folders may share names."""
    return out / f'{index + 1:03d}_{image.stem}.png'
