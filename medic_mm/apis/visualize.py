"""Pictures of what a checkpoint makes of images, as ``tools/visualize.py`` does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import TwoNormDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.apis.cfg_options import OptionError
from medic_mm.apis.image_files import find_images, load_images
from medic_mm.apis.student import Student, load_student
from medic_mm.models.teachers import CachedTeacher, FrozenTeacher
from medic_mm.registry import MODELS
from medic_mm.visualization.attention import (
    ClassAttention,
    choose_block,
    join_batches,
    student_attention,
    teacher_attention,
)
from medic_mm.visualization.attention_figures import draw_attention, draw_overview

_BATCH = 8
_DOTS_PER_INCH = 130
#: More images would make a picture too tall to look at.
_MOST_IN_OVERVIEW = 16


@dataclass(frozen=True)
class Drawn:
    """What was written, and what there is to say about it.

    Attributes:
        files: The pictures.
        notes: Sentences for the user, such as why the teacher is left out.
    """

    files: list[Path]
    notes: list[str]


def visualize_attention(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    block: int | None = None,
    with_teacher: bool = True,
    limit: int = 8,
    interpolation: str = 'nearest',
    overlay: bool = False,
    device: str = 'auto',
) -> Drawn:
    """Draw the class token's attention: every head of the student and of the teacher.

    Args:
        config: A config of pre-training with a ViT as ``model.backbone``.
        checkpoint: A file with the weights below ``backbone.``, loaded strictly, or
            ``'random'``: weights drawn with the config's ``randomness.seed`` (or 0).
        images: Image files, or folders of them.
        out: Folder to write to: ``overview.png``, and one picture per image.
        block: Block of the student, from 1. Default: the last.
        with_teacher: Also show the block that the teacher's targets come from.
        limit: Take at most so many images.
        interpolation: How maps are enlarged: ``'nearest'`` or ``'bilinear'``.
        overlay: Draw maps over the image instead of beside it.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.

    Raises:
        OptionError: for images, weights, a block or a backbone that cannot be used; one
            sentence names what would be right.
    """
    if 'backbone' not in (config.get('model') or {}):
        raise OptionError('the config has no model.backbone: give one of pre-training')
    if Path(out).exists() and not Path(out).is_dir():
        raise OptionError(f'--out {out} is a file: give a folder')
    paths = find_images(images, limit)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    where = torch.device(get_device() if device == 'auto' else device)
    try:
        student = load_student(config, checkpoint).to(where)
    except RuntimeError as error:
        raise OptionError(str(error)) from error
    try:
        number = choose_block(student.backbone, block)
    except ValueError as error:
        raise OptionError(str(error)) from error
    inputs = load_images(config, paths, student.backbone.img_size)
    teacher, notes = _load_teacher(config) if with_teacher else (None, [])
    pictures, sides, unreadable = _read(student, teacher, inputs, number)
    return Drawn(
        _write(paths, pictures, sides, Path(out), interpolation, overlay),
        notes + unreadable + _left_out_of_overview(len(paths)),
    )


def _load_teacher(config: Config) -> tuple[nn.Module | None, list[str]]:
    """The config's teacher with its weights; or None and why."""
    settings = config.model.get('target_generator')
    if settings is None:
        return None, ['The config has no target_generator, so no teacher is shown.']
    kind = settings['type']
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if found is None or not issubclass(found, (FrozenTeacher, CachedTeacher)):
        return None, [
            f'The teacher is left out: attention cannot be read from '
            f'{getattr(found, "__name__", kind)}.'
        ]
    try:
        teacher = MODELS.build(settings)
        teacher.init_weights()
    except (OSError, RuntimeError, ValueError) as error:
        raise OptionError(
            f'the teacher cannot be loaded: {error} (--no-teacher leaves it out)'
        ) from error
    return teacher, []


def _read(
    student: Student, teacher: nn.Module | None, inputs: Tensor, block: int
) -> tuple[Tensor, list[ClassAttention], list[str]]:
    """Images as shown, the maps of both sides, and notes."""
    pictures: list[Tensor] = []
    students: list[ClassAttention] = []
    teachers: list[ClassAttention] = []
    notes: list[str] = []
    for images, mean, std in _normalised(student.data_preprocessor, inputs):
        pictures.append(((images * std + mean) / 255).clamp(0, 1).cpu())
        students.append(student_attention(student.backbone, images, block))
        if teacher is None:
            continue
        try:
            teachers.append(teacher_attention(teacher, images, mean, std))
        except ValueError as error:
            notes.append(f'The teacher is left out: {error}.')
            teacher = None
    sides = [join_batches(part) for part in (students, teachers) if part]
    return torch.cat(pictures), sides, notes


def _normalised(
    preprocessor: nn.Module, inputs: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches as the backbone takes them, and the statistics that made them."""
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


def _write(
    paths: Sequence[Path],
    pictures: Tensor,
    sides: Sequence[ClassAttention],
    out: Path,
    interpolation: str,
    overlay: bool,
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    figure = Figure()
    most = _MOST_IN_OVERVIEW
    draw_overview(figure, pictures[:most], sides, interpolation)
    files = [_save(figure, out / 'overview.png')]
    for index, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        figure = Figure()
        draw_attention(figure, picture, sides, index, interpolation, overlay)
        # numbered, since files of several folders may share a name
        files.append(_save(figure, out / f'{index + 1:03d}_{path.stem}.png'))
    return files


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def _left_out_of_overview(total: int) -> list[str]:
    most = _MOST_IN_OVERVIEW
    if total <= most:
        return []
    return [f'overview.png shows the first {most} of {total} images.']
