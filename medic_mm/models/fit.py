"""Whether the parts of a method fit each other, checked before the first step.

A method or a component declares its rules, each a function of the model that raises;
:func:`require_fit` checks them, in order, when the model is built.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from mmpretrain.models import MAEPretrainDecoder, MAEPretrainHead
from torch import Tensor, nn

from medic_mm.checks import require
from medic_mm.datasets.data_preprocessor import require_rgb
from medic_mm.errors import UserError
from medic_mm.models.teachers import FrozenTeacher

Rule = Callable[[nn.Module], None]


def require_fit(model: nn.Module, *rules: Rule) -> None:
    """Refuse a model that breaks one of the rules its parts declare.

    Raises:
        UserError: names the setting, its value and what would be right.
    """
    for rule in rules:
        rule(model)


def equal(
    setting: str,
    what: str,
    wanted: str | Callable[[nn.Module], Any],
    read: str | None = None,
) -> Rule:
    """The rule that a setting equals what another part has.

    Args:
        setting: As written in a config, for example ``'head.embed_dims'``.
        what: What it must equal, for the sentence: ``'the width of the backbone'``.
        wanted: Attribute of the model that has it, or a function of the model.
        read: Attribute that has the setting. Default: its own name.
    """

    def rule(model: nn.Module) -> None:
        given = attrgetter(read or setting)(model)
        right = attrgetter(wanted)(model) if isinstance(wanted, str) else wanted(model)
        require(given == right, f'{setting}={given} must equal {what}, {right}')

    return rule


def require_batch(inputs: Any, backbone: nn.Module) -> None:
    """Refuse images that are not one batch of the backbone's size.

    Raises:
        UserError: says what to set in the pipeline.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        raise UserError(
            'the images come one by one, not as a batch: set '
            "collate_fn=dict(type='default_collate') in train_dataloader"
        )
    size, wanted = tuple(inputs.shape[-2:]), tuple(backbone.img_size)
    if size != wanted:
        raise UserError(
            f'the images are {size[0]}x{size[1]} but backbone.img_size is '
            f'{wanted[0]}x{wanted[1]}: crop them to that size in the pipeline'
        )


def require_dividing_heads(model: nn.Module) -> None:
    """Refuse attention whose heads do not divide its width, in any part of a model.

    mmpretrain's layers round the quotient down and fail in the first step.

    Raises:
        UserError: names the part.
    """
    for name, part in model.named_modules():
        heads, width = (getattr(part, key, None) for key in ('num_heads', 'embed_dims'))
        if not isinstance(heads, int) or not isinstance(width, int):
            continue
        require(
            heads >= 1 and width % heads == 0,
            f'{name} has num_heads={heads}: {heads} heads do not divide the width '
            f'{width}; use a divisor of it',
        )


def hands_on_rgb(model: nn.Module) -> None:
    """The rule that the network sees RGB images."""
    require_rgb(model.data_preprocessor)


def teacher_setting(teacher: FrozenTeacher, name: str) -> str:
    """Where a setting of the teacher is written in a config, behind a cache too."""
    behind = teacher.uncached is not teacher
    return f'target_generator.{"teacher." if behind else ""}{name}'


def require_teacher(teacher: Any, relations: bool, fitting: str) -> None:
    """Refuse what is not a frozen teacher, or one that gives something else.

    Args:
        teacher: The teacher.
        relations: Whether queries, keys and values are wanted, or else tokens.
        fitting: Teachers that give them, for the sentence.

    Raises:
        UserError: names them.
    """
    what = 'the queries, keys and values of a block' if relations else 'tokens'
    require(
        isinstance(teacher, FrozenTeacher) and teacher.gives_relations == relations,
        f'target_generator.type={type(teacher).__name__} does not hand out {what}: use '
        f'{fitting}',
    )


def require_grid(
    teacher: FrozenTeacher, grid: tuple[int, int], resizes: bool, otherwise: str
) -> None:
    """Refuse a teacher with another grid of patches than the student's.

    Args:
        teacher: The teacher, cached or not.
        grid: Rows and columns of the student.
        resizes: Whether ``output_grid`` may bring its tokens to the student's grid.
        otherwise: What to do where no setting of the teacher helps.

    Raises:
        UserError: names the settings with which the two agree.
    """
    found = tuple(teacher.grid)
    if found == tuple(grid):
        return
    advice = []
    if grid[0] == grid[1]:
        side = (
            f'{teacher_setting(teacher, "input_size")}={grid[0] * teacher.patch_size}'
        )
        own = tuple(teacher.native_grid) == found
        advice.append(side if own else f'{side} without output_grid')
    if resizes:
        setting = teacher_setting(teacher, 'output_grid')
        advice.append(f'{setting}={tuple(grid)} to resize its tokens')
    require(
        False,
        f'the teacher has a grid of {found} patches but the student one of '
        f'{tuple(grid)}: ' + ('set ' + ', or '.join(advice) if advice else otherwise),
    )


def require_pixels(
    pixel_loss: nn.Module, backbone: nn.Module, setting: str = 'head.pixel_loss'
) -> None:
    """Refuse a pixel term whose patches are not the backbone's, or oblong images.

    Args:
        pixel_loss: The component of the term.
        backbone: The student.
        setting: Where the component is written in a config.

    Raises:
        UserError: names the setting.
    """
    if isinstance(pixel_loss, MAEPretrainHead):
        _require_square(backbone)
    patch = patch_size(backbone)
    given = getattr(pixel_loss, 'patch_size', patch)
    require(
        given == patch,
        f'{setting}.patch_size={given} must equal the patch size of the backbone, '
        f'{patch}',
    )


def _require_square(backbone: nn.Module) -> None:
    rows, columns = backbone.patch_resolution
    require(
        rows == columns,
        f'backbone.img_size={tuple(backbone.img_size)} gives a grid of '
        f'{rows}x{columns} patches, but MAEPretrainHead and its decoder take '
        'square images only: use a square img_size, or head.weights.pixel=0',
    )


def require_decoder(neck: nn.Module, backbone: nn.Module) -> None:
    """Refuse an ``MAEPretrainDecoder`` of another width, grid or patch size.

    Raises:
        UserError: names the setting.
    """
    if not isinstance(neck, MAEPretrainDecoder):
        return
    _require_square(backbone)
    rows, columns = backbone.patch_resolution
    pixels = patch_size(backbone) ** 2 * 3
    for setting, given, wanted, what in (
        ('num_patches', neck.num_patches, rows * columns, 'number of patches'),
        ('embed_dim', neck.decoder_embed.in_features, backbone.embed_dims, 'width'),
    ):
        require(
            given == wanted,
            f'neck.{setting}={given} must equal the {what} of the backbone, {wanted}',
        )
    given = neck.decoder_pred.out_features
    require(
        given == pixels,
        f'the decoder predicts {given} numbers a patch but a patch of the backbone has '
        f'{pixels}: set neck.patch_size={patch_size(backbone)} and neck.in_chans=3',
    )


def patch_size(backbone: nn.Module) -> int:
    """Side of a patch of the backbone, in pixels."""
    return backbone.patch_embed.projection.kernel_size[0]
