"""Patch tokens as colours: ``tools/visualize.py features``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.pictures.common import (
    Drawn,
    as_pictures,
    load_teacher,
    normalised,
    open_student,
    require_backbone,
    require_folder,
    save_figure,
)
from medic_mm.pictures.feature_figures import draw_features
from medic_mm.pictures.patch_tokens import (
    PatchTokens,
    join_tokens,
    student_tokens,
    teacher_tokens,
)
from medic_mm.settings.images import find_images, load_images
from medic_mm.settings.student import Student


def visualize_features(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    out: str | Path,
    block: int | None = None,
    with_teacher: bool = True,
    limit: int = 8,
    device: str = 'auto',
) -> Drawn:
    """Draw the patch tokens of teacher and student by their principal components.

    Args:
        config: A config of pre-training with a ViT as ``model.backbone``.
        checkpoint: A file with the weights below ``backbone.``, or ``'random'``.
        images: Image files, or folders of them.
        out: Folder to write ``features.png`` to.
        block: Block of the student, from 1. Default: the last, after its norm.
        with_teacher: Also show what the teacher hands to the student: its patch
            tokens; of an MAE of MIM-HD the values of its block, heads joined.
        limit: Take at most so many images.
        device: As in :func:`visualize_attention`.

    Raises:
        UserError: for images, weights, a block or a backbone that cannot be used; one
            sentence names what would be right.
    """
    require_backbone(config)
    folder = require_folder(out)
    paths = find_images(images, limit)
    student = open_student(config, checkpoint, device)
    size = getattr(student.backbone, 'img_size', (224, 224))
    inputs = load_images(config, paths, size)
    teacher, notes = load_teacher(config, 'its tokens') if with_teacher else (None, [])
    try:
        pictures, sides = _read(student, teacher, inputs, block)
    except ValueError as error:
        raise UserError(str(error)) from error
    figure = Figure()
    draw_features(figure, pictures, sides)
    return Drawn([save_figure(figure, folder / 'features.png')], notes)


def _read(
    student: Student, teacher: nn.Module | None, inputs: Tensor, block: int | None
) -> tuple[Tensor, dict[str, PatchTokens]]:
    """Images as shown, and the tokens of both sides, the teacher's first."""
    pictures: list[Tensor] = []
    teachers: list[PatchTokens] = []
    students: list[PatchTokens] = []
    for images, mean, std in normalised(student.data_preprocessor, inputs):
        pictures.append(as_pictures(images, mean, std))
        students.append(student_tokens(student.backbone, images, block))
        if teacher is not None:
            teachers.append(teacher_tokens(teacher, images, mean, std))
    sides = {'teacher': teachers, 'student': students}
    found = {name: join_tokens(parts) for name, parts in sides.items() if parts}
    return torch.cat(pictures), found
