"""Rows and columns of position embeddings, and weights for images of another size."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.checkpoints.description import (
    describe_run,
    parse_config_text,
    read_description,
)
from medic_mm.errors import FileError, UserError

Grid = tuple[int, int]

#: Where a description keeps the grid, as ``'14x14'``.
GRID_KEY = 'grid'

_POSITIONS = 'pos_embed'
_ALL_POSITIONS = (
    *(_POSITIONS, 'backbone.pos_embed'),
    *('decoder_pos_embed', 'neck.decoder_pos_embed'),
)
_PATCHES = ('patch_embed.proj.weight', 'patch_embed.projection.weight')
_DECODER = ('decoder_', 'mask_token', 'neck.')
_HOW = (
    'say source_grid=(rows, columns), or convert it by tools/convert.py --source-grid'
)


def recorded_grid(path: str | os.PathLike, content: Mapping[str, Any]) -> Grid | None:
    """The grid that a file names: its description, its config, or one in its folder."""
    known = read_description(path) or describe_run(content)
    if found := re.fullmatch(r'(\d+)x(\d+)', known.get(GRID_KEY, '')):
        return int(found[1]), int(found[2])
    try:
        model = parse_config_text(known.get('config', '')).get('model')
    except ValueError:
        model = None
    backbone = model.get('backbone') if isinstance(model, dict) else None
    if isinstance(backbone, dict):
        return config_grid(backbone)
    return _grid_of_folder(Path(path))


def config_grid(backbone: Mapping[str, Any]) -> Grid | None:
    """The grid that the settings of a backbone ask for."""
    # the defaults of all backbones of OpenMMLab
    return _divided(backbone.get('img_size', 224), backbone.get('patch_size', 16))


def grid_text(grid: Sequence[int]) -> str:
    """``'14x14'``."""
    return f'{grid[0]}x{grid[1]}'


def find_grid(
    count: int,
    name: str,
    origin: str,
    given: Sequence[int] | None = None,
    recorded: Grid | None = None,
) -> tuple[Grid, str]:
    """Rows and columns of ``count`` patches (without class tokens).

    Args:
        count: Patches of the position embeddings.
        name: Of these, for the sentence, as is ``origin``, the file.
        origin: See ``name``.
        given: What the user says.
        recorded: What the file says; not believed where the number differs, as after a
            resize by other tools.

    Returns:
        The grid, and a sentence where it had to be assumed, else ``''``.

    Raises:
        UserError: where ``given`` has another number of patches.
        FileError: where nobody says and the number is not a square.
    """
    if given is not None:
        if len(given) != 2 or not all(type(side) is int and side > 0 for side in given):
            raise UserError(
                f'source_grid={tuple(given)} is not a grid: give rows and columns, as '
                'in source_grid=(14, 14)'
            )
        if math.prod(given) != count:
            raise UserError(
                f'source_grid={tuple(given)} has {math.prod(given)} patches, but '
                f'{name} of {origin} has {count}'
            )
        return (given[0], given[1]), ''
    if recorded is not None and math.prod(recorded) == count:
        return recorded, ''
    side = math.isqrt(max(count, 0))
    if not side or side**2 != count:
        raise FileError(
            f'{name} of {origin} has {count} patches, which are not a square, and the '
            f'file does not say their rows and columns: {_HOW}'
        )
    return (side, side), (
        f'{name} of {origin} has {count} patches: read as {side} rows of {side}, which '
        'is assumed, since the file does not say it'
    )


def fit_positions(
    backbone: nn.Module,
    weights: Mapping[str, Tensor],
    origin: str,
    given: Sequence[int] | None = None,
    recorded: Grid | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Bring position embeddings of oblong images onto a backbone's grid.

    Those of square images are left to the backbone, which takes any for a square.

    Returns:
        The weights, and sentences on what was assumed.

    Raises:
        UserError, FileError: as :func:`find_grid`; also where the number is the
            backbone's own and could be either grid.
    """
    own, value = _own_grid(backbone), weights.get(_POSITIONS)
    shape = tuple(getattr(getattr(backbone, _POSITIONS, None), 'shape', ()))
    if own is None or value is None or value.dim() != 3 or len(shape) != 3:
        return dict(weights), []
    extra = shape[1] - math.prod(own)  # class and register tokens
    count = value.shape[1] - extra
    if extra == 0 and value.shape[1] == shape[1] + 1:
        return dict(weights), []  # the backbone drops the class token's
    known = given is not None or (recorded is not None and math.prod(recorded) == count)
    if not known and count == math.prod(own) and own[0] != own[1]:
        there = f'{_POSITIONS} of {origin} has {count} patches'
        if math.isqrt(count) ** 2 == count:
            raise FileError(
                f'{there}, which may be {grid_text(own)} as in the backbone, or a '
                f'square: {_HOW}'
            )
        return dict(weights), [
            f'{there}: read as {grid_text(own)} as in the backbone, which is assumed, '
            'since the file does not say it'
        ]
    grid, note = find_grid(count, _POSITIONS, origin, given, recorded)
    fitted = dict(weights)
    # a square of another size is the backbone's own work
    if grid != own and (grid[0] != grid[1] or count == math.prod(own)):
        fitted[_POSITIONS] = interpolate(value, grid, own, extra)
    return fitted, [note] if note else []


def _own_grid(backbone: nn.Module) -> Grid | None:
    """Rows and columns of patches that a backbone's own position embeddings have."""
    embed = getattr(backbone, 'patch_embed', None)
    for name in ('init_out_size', 'grid_size'):  # OpenMMLab, timm
        found = getattr(embed, name, None)
        if isinstance(found, Sequence) and len(found) == 2:
            return int(found[0]), int(found[1])
    return None


def interpolate(positions: Tensor, old: Grid, new: Grid, extra: int) -> Tensor:
    """Bicubic, as mmpretrain resizes them: ``(1, extra + L, D)`` to another grid."""
    tokens, patches = positions[:, :extra], positions[:, extra:]
    image = patches.float().unflatten(1, old).permute(0, 3, 1, 2)  # (1, D, h, w)
    image = F.interpolate(image, new, mode='bicubic', align_corners=False)
    resized = image.permute(0, 2, 3, 1).flatten(1, 2)  # (1, L', D)
    return torch.cat([tokens, resized.to(tokens.dtype)], 1)


def resize_weights(
    weights: Mapping[str, Tensor],
    img_size: int | None = None,
    patch_size: int | None = None,
    source_grid: Sequence[int] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fit weights to images or patches of another size.

    Position embeddings are interpolated (bicubic; the class token's is kept): enlarged
    they are what mmpretrain, mmseg and the official MAE make of them on loading, shrunk
    they are smoothed as well, as timm does. The patch embedding is resized by the
    pseudo-inverse of the interpolation of images (FlexiViT, arXiv 2212.08013): with
    larger patches on images enlarged as much, the tokens stay the same. Both are timm's
    functions.

    Args:
        weights: In any layout but ``'open_clip'``, with square patches.
        img_size: Pixels a side of a square image; None keeps that of the weights.
        patch_size: Pixels a side; None keeps it.
        source_grid: Rows and columns of patches that ``weights`` are for. Default: a
            square, which the log says.

    Returns:
        The weights, and names left out, each with a reason: a decoder, where the
        patches that it predicts have another size now.

    Raises:
        UserError: for weights without patch embedding or absolute positions, with
            relative ones, or a size that does not divide; for a number of patches that
            is not that of ``source_grid``, or without it not a square.
    """
    if img_size is None and patch_size is None:
        return dict(weights), {}
    patches = _find(weights, *_PATCHES)
    positions = _find(weights, _POSITIONS)
    relative = [name for name in weights if 'relative_position' in name]
    if patches is None or positions is None or relative:
        problem = relative[0] if relative else 'no patch or position embedding'
        raise UserError(
            f'img_size={img_size}, patch_size={patch_size}: the weights cannot be '
            f'resized ({problem}); only absolute position embeddings can'
        )
    old_patch = weights[patches].shape[-1]
    grid, note = find_grid(
        weights[positions].shape[1] - 1, positions, 'the weights', source_grid
    )
    if note:
        logging.getLogger(__name__).warning(note)
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    new = resized_grid(weights, grid, img_size, patch_size)
    resized = dict(weights)
    left_out: dict[str, str] = {}
    if patch_size not in (None, old_patch):
        reason = f'it predicts patches of {old_patch} pixels, not of {patch_size}'
        left_out = {name: reason for name in weights if name.startswith(_DECODER)}
        resized = {k: v for k, v in weights.items() if k not in left_out}
        resized[patches] = resample_patch_embed(weights[patches], [patch_size] * 2)
    smaller = new[0] < grid[0] or new[1] < grid[1]
    for name in _ALL_POSITIONS if new != grid else ():
        if name in resized:
            resized[name] = resample_abs_pos_embed(
                resized[name], list(new), list(grid), antialias=smaller
            )
    return resized, left_out


def resized_grid(
    weights: Mapping[str, Tensor],
    grid: Grid,
    img_size: int | None,
    patch_size: int | None,
) -> Grid:
    """Rows and columns after :func:`resize_weights`, from those before.

    Raises:
        UserError: for a size that does not divide.
    """
    old_patch = weights[_find(weights, *_PATCHES) or ''].shape[-1]
    patch = old_patch if patch_size is None else patch_size
    sides = [side * old_patch if img_size is None else img_size for side in grid]
    wrong = [side for side in sides if patch < 1 or side < 1 or side % patch]
    if wrong:
        raise UserError(f'img_size={wrong[0]} is not a multiple of patch_size={patch}')
    return sides[0] // patch, sides[1] // patch


def positions_in(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the absolute position embeddings, if there are any."""
    return _find(weights, _POSITIONS)


def _find(weights: Mapping[str, Tensor], *names: str) -> str | None:
    """The first of these names that is there, also below ``backbone.``."""
    known = (*names, *map('backbone.{}'.format, names))
    return next((name for name in known if name in weights), None)


def _divided(image: Any, patch: Any) -> Grid | None:
    """Patches a side, where both sizes are whole numbers, one or two."""
    sides = [(v, v) if isinstance(v, int) else v for v in (image, patch)]
    for pair in sides:
        if not isinstance(pair, (list, tuple)) or [type(n) for n in pair] != [int, int]:
            return None
    (height, width), (rows, columns) = sides
    return None if rows < 1 or columns < 1 else (height // rows, width // columns)


def _grid_of_folder(path: Path) -> Grid | None:
    """From ``config.json`` in the folder of an export, by Hugging Face or by timm."""
    file = path.with_name('config.json')
    if path.stem not in ('model', 'pytorch_model') or not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding='utf-8'))
        arguments = config.get('model_args', {})
        data = config.get('pretrained_cfg', {}).get('input_size', [None])[1:]
        image = config.get('image_size') or arguments.get('img_size') or data
        patch = config.get('patch_size') or arguments.get('patch_size')
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return _divided(image, patch)
