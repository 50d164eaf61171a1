"""Where the class token looks: ``tools/visualize.py attention``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.models.teachers import FrozenTeacher
from medic_mm.models.vit.attention import (
    ClassAttention,
    choose_block,
    join_batches,
    student_attention,
)
from medic_mm.pictures.attention_figures import draw_attention, draw_overview
from medic_mm.pictures.common import (
    Drawn,
    as_pictures,
    file_of_image,
    load_teacher,
    normalised,
    open_student,
    require_backbone,
    require_folder,
    save_figure,
)
from medic_mm.settings.images import find_images, load_images
from medic_mm.settings.student import Student

#: More images would make a picture too tall to look at.
_MOST_IN_OVERVIEW = 16


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
        UserError: for images, weights, a block or a backbone that cannot be used; one
            sentence names what would be right.
    """
    require_backbone(config)
    folder = require_folder(out)
    paths = find_images(images, limit)
    student = open_student(config, checkpoint, device)
    try:
        number = choose_block(student.backbone, block)
    except ValueError as error:
        raise UserError(str(error)) from error
    inputs = load_images(config, paths, student.backbone.img_size)
    teacher, notes = load_teacher(config) if with_teacher else (None, [])
    pictures, sides, unreadable = _read(student, teacher, inputs, number)
    return Drawn(
        _write(paths, pictures, sides, folder, interpolation, overlay),
        notes + unreadable + _left_out_of_overview(len(paths)),
    )


def _read(
    student: Student, teacher: FrozenTeacher | None, inputs: Tensor, block: int
) -> tuple[Tensor, list[ClassAttention], list[str]]:
    """Images as shown, the maps of both sides, and notes."""
    pictures: list[Tensor] = []
    students: list[ClassAttention] = []
    teachers: list[ClassAttention] = []
    notes: list[str] = []
    for images, mean, std in normalised(student.data_preprocessor, inputs):
        pictures.append(as_pictures(images, mean, std))
        students.append(student_attention(student.backbone, images, block))
        if teacher is None:
            continue
        try:
            teachers.append(teacher.class_attention(images, mean, std))
        except ValueError as error:
            notes.append(f'The teacher is left out: {error}.')
            teacher = None
    sides = [join_batches(part) for part in (students, teachers) if part]
    return torch.cat(pictures), sides, notes


def _write(
    paths: Sequence[Path],
    pictures: Tensor,
    sides: Sequence[ClassAttention],
    out: Path,
    interpolation: str,
    overlay: bool,
) -> list[Path]:
    figure = Figure()
    most = _MOST_IN_OVERVIEW
    draw_overview(figure, pictures[:most], sides, interpolation)
    files = [save_figure(figure, out / 'overview.png')]
    for index, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        figure = Figure()
        draw_attention(figure, picture, sides, index, interpolation, overlay)
        files.append(save_figure(figure, file_of_image(out, index, path)))
    return files


def _left_out_of_overview(total: int) -> list[str]:
    most = _MOST_IN_OVERVIEW
    if total <= most:
        return []
    return [f'overview.png shows the first {most} of {total} images.']
