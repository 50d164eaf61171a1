"""Images with the teacher's attention, and how a config masks them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.masking import masked_count
from medic_mm.models.teachers import FrozenTeacher
from medic_mm.pictures.commands.mask_settings import find_mask_transform
from medic_mm.pictures.common import (
    as_pictures,
    enter_scope,
    load_teacher,
    normalised,
    open_student,
    require_backbone,
)
from medic_mm.registry import MODELS, TRANSFORMS
from medic_mm.settings.images import find_images, load_images
from medic_mm.settings.student import RANDOM, Student

_PLAIN_SIZE, _PLAIN_GRID = (224, 224), (14, 14)


@dataclass(frozen=True)
class Attended:
    """Images as they are shown, and what their patches attend to.

    Attributes:
        paths: The files.
        pictures: ``(B, 3, H, W)``, RGB in 0..1.
        grid: Rows and columns of patches: of the teacher, where there is one.
        attention: ``(B, L, L)``; None without a teacher.
        notes: Sentences for the user.
    """

    paths: list[Path]
    pictures: Tensor
    grid: tuple[int, int]
    attention: Tensor | None = None
    notes: list[str] = field(default_factory=list)


def read_attended(
    config: Config | None,
    images: Sequence[str | Path],
    limit: int,
    device: str,
    with_teacher: bool = True,
) -> Attended:
    """Read images as the config evaluates them, and the teacher's attention on them.

    Args:
        config: A config of pre-training. None: images of 224 px in 14 x 14 patches.
        images: Files or folders.
        limit: At most so many.
        device: As on the command line.
        with_teacher: False leaves the teacher out.

    Raises:
        UserError: for images or a config that cannot be used.
    """
    if config is not None:
        require_backbone(config)
    paths = find_images(images, limit)
    if config is None:
        plain = Config()
        enter_scope(plain)
        inputs = load_images(plain, paths, _PLAIN_SIZE)
        return Attended(paths, inputs.flip(1) / 255, _PLAIN_GRID)
    student = open_student(config, RANDOM, device)
    backbone: Any = student.backbone
    if getattr(backbone, 'patch_resolution', None) is None:
        raise UserError(
            f'model.backbone is {type(backbone).__name__}, which has no patches to '
            'mask: give the config of a plain ViT'
        )
    own = tuple(backbone.patch_resolution)
    inputs = load_images(config, paths, backbone.img_size)
    teacher, notes = load_teacher(config) if with_teacher else (None, [])
    pictures, attention, grid = _attend(student, teacher, inputs, notes)
    if attention is None or grid == own:
        return Attended(paths, pictures, own, attention, notes)
    notes.append(
        f'Masks are drawn on the {grid[0]} x {grid[1]} patches of the teacher; the '
        f'student has {own[0]} x {own[1]}.'
    )
    return Attended(paths, pictures, grid, attention, notes)


def _attend(
    student: Student, teacher: FrozenTeacher | None, inputs: Tensor, notes: list[str]
) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
    """Images as shown, the teacher's attention on them and its grid; may add a note."""
    pictures, maps, grid = [], [], (0, 0)
    for batch, mean, std in normalised(student.data_preprocessor, inputs):
        pictures.append(as_pictures(batch, mean, std))
        if teacher is None:
            continue
        try:
            attention = teacher.patch_attention(batch, mean, std)
        except ValueError as error:
            notes.append(f'The teacher is left out: {error}.')
            teacher = None
        else:
            maps.append(attention)
            grid = teacher.native_grid
    return torch.cat(pictures), torch.cat(maps) if maps else None, grid


def count_masked(
    config: Config | None, ratio: float | None, grid: tuple[int, int]
) -> int:
    """Patches to hide: by the ratio, else as the config's own masks, else 40 %.

    Raises:
        UserError: for a ratio that leaves nothing to hide or nothing to see.
    """
    length = grid[0] * grid[1]
    own = _own_ratio(config) if config is not None else None
    share = ratio if ratio is not None else own if own is not None else 0.4
    count = masked_count(length, share) if 0 < share < 1 else 0
    if not 0 < count < length:
        raise UserError(
            f'--ratio {share:g} would hide {count} of {length} patches: use a share '
            f'between {1 / length:.2g} and 1'
        )
    return count


def least_block(config: Config | None) -> int:
    """``min_area`` of the config's ``BlockMask``, or 16."""
    step = find_mask_transform(config) if config is not None else None
    return (step or {}).get('min_area', 16)


def _own_ratio(config: Config) -> float | None:
    """The mask ratio of the config's training, if it hides anything."""
    step = find_mask_transform(config)
    if step is not None and step.get('num_masked') is None and 'mask_ratio' in step:
        return step['mask_ratio']
    if step is not None:
        built = TRANSFORMS.build(step)
        return built.num_masked / math.prod(built.grid)
    model = config.model
    for part in (model.get('masking') or {}, model, model['backbone']):
        if part.get('mask_ratio') is not None:
            return part['mask_ratio']
    kind = MODELS.get(model['type']) if isinstance(model['type'], str) else None
    known = inspect.signature(kind).parameters if kind is not None else {}
    return known['mask_ratio'].default if 'mask_ratio' in known else None
