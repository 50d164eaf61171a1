"""Arguments of mmpretrain's ``VisionTransformer``, checked before it is built.

mmpretrain leaves most of them to the first step: heads that do not divide the width are
an error of ``reshape`` there, an architecture without a key a bare ``KeyError``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import PretrainedInit

from medic_mm.checks import require, require_number, require_numbers
from medic_mm.helpers import listed, nearest, type_name

ARCH_KEYS = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')


def complete_arch(owner: str, arch: Any, zoo: Mapping[str, dict]) -> dict[str, int]:
    """The numbers of an architecture, by name or as they are given.

    Args:
        owner: Whose setting it is, for the sentence.
        arch: A name that mmpretrain knows, or a dict of four numbers.
        zoo: mmpretrain's architectures by name.

    Raises:
        UserError: for an unknown name, a key that is missing or unknown, a number that
            is not one, or heads that do not divide the width.
    """
    keys = ', '.join(ARCH_KEYS)
    if isinstance(arch, str):
        near = nearest(arch, zoo)
        require(
            arch.lower() in zoo,
            f'arch={arch!r} is unknown to mmpretrain'
            f'{"; near names: " + ", ".join(near) if near else ""}. Give {owner} a '
            f'dict with {keys}, or one of {", ".join(sorted(zoo))}',
        )
        return dict(zoo[arch.lower()])
    require(
        isinstance(arch, Mapping),
        f'arch={arch!r} of {owner} must be a name or a dict with {keys}',
    )
    for problem, names in (
        ('lacks', [key for key in ARCH_KEYS if key not in arch]),
        ('has the unknown keys', [key for key in arch if key not in ARCH_KEYS]),
    ):
        require(
            not names, f'arch of {owner} {problem} {listed(names)}: it needs {keys}'
        )
    for key in ARCH_KEYS:
        require_number(owner, f'arch.{key}', arch[key], low=1, integer=True)
    heads = arch['num_heads']
    start = f'arch of {owner} has num_heads={heads}, but {heads} heads in block 1'
    require_division(start, heads, arch['embed_dims'])
    return {key: arch[key] for key in ARCH_KEYS}


def require_division(start: str, heads: int, width: int) -> None:
    """Refuse a number of heads that does not divide a width.

    Args:
        start: How the sentence begins: the setting, its value, and where it holds.
        heads: A whole number of 1 or more.
        width: Width of the block.
    """
    require(
        width % heads == 0,
        f'{start} do not divide the width {width}: use a divisor of embed_dims={width}',
    )


def sides(owner: str, setting: str, value: Any) -> tuple[int, int]:
    """``(height, width)`` of a size that is one number or a pair."""
    pair = (value, value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        require(
            len(value) == 2,
            f'{setting}={value!r} of {owner} must be one number, or height and width',
        )
        pair = tuple(value)
    for side in pair:
        require(
            not isinstance(side, bool) and isinstance(side, int) and side >= 1,
            f'{setting}={value!r} of {owner} must be a whole number at least 1, or two',
        )
    return pair


def require_patches(owner: str, size: Any, patch: Any, start: str) -> None:
    """Refuse an image size that the patch size does not divide, and say which fit.

    Args:
        owner: Whose sizes they are.
        size: Of the image: one number, or height and width.
        patch: Of a patch, in the same form.
        start: How the sentence begins, with both values.
    """
    steps = sides(owner, 'patch_size', patch)
    for side, step in zip(sides(owner, 'img_size', size), steps, strict=True):
        below = max(side // step, 1) * step
        require(
            side % step == 0,
            f'{start}: the nearest fitting sizes are {below} and {below + step}',
        )


def check_numbers(owner: object, **given: int | None) -> None:
    """Refuse what is not a whole number, before a network is built with it.

    Sizes are 1 or more, and None stands for a default; which blocks there are, the
    network knows.
    """
    for name, value in given.items():
        if value is not None:
            low = 1 if name.endswith('_size') else None
            require_number(owner, name, value, low=low, integer=True)


def require_size(owner: str, size: int, patch: int) -> None:
    """Refuse a size of the input that the patch size does not divide."""
    start = f'input_size={size} of {owner} is not a multiple of its patch size {patch}'
    require_patches(owner, size, patch, start)


def check_vit(
    vit: type, kwargs: Mapping[str, Any], owner: str | None = None
) -> dict[str, int]:
    """Refuse arguments with which the network cannot run.

    Args:
        vit: ``VisionTransformer`` or a subclass that needs its class token.
        kwargs: Its arguments; what is left out has mmpretrain's default.
        owner: Whose settings they are. Default: the class's name.

    Returns:
        The numbers of the architecture.

    Raises:
        UserError: names the argument, its value and what would fit.
    """
    owner = owner or vit.__name__
    base = next(c for c in vit.__mro__ if c.__name__ == 'VisionTransformer')
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(base).parameters.items()
    }
    given = {**defaults, **kwargs}
    require(
        given['with_cls_token'],
        f'with_cls_token={given["with_cls_token"]!r}: {owner} needs its class token, '
        'so with_cls_token=True',
    )
    settings = complete_arch(owner, given['arch'], base.arch_zoo)
    patch = (given['patch_cfg'] or {}).get('kernel_size', given['patch_size'])
    size = given['img_size']
    start = f'img_size={size} is not a multiple of patch_size={patch}'
    require_patches(owner, size, patch, start)
    require_number(owner, 'in_channels', given['in_channels'], low=1, integer=True)
    require_number(owner, 'frozen_stages', given['frozen_stages'], low=-1, integer=True)
    for name in ('drop_rate', 'drop_path_rate'):
        require_number(owner, name, given[name], low=0, below=1)
    scale = given['layer_scale_init_value']
    if scale is not None:
        require_number(owner, 'layer_scale_init_value', scale, low=0)
    depth, found = settings['num_layers'], given['out_indices']
    require_numbers(owner, 'out_indices', found, low=-depth, high=depth, integer=True)
    _check_blocks(owner, given['layer_cfgs'] or {}, settings)
    return settings


def _check_blocks(owner: str, blocks: Any, settings: dict[str, int]) -> None:
    depth, width = settings['num_layers'], settings['embed_dims']
    blocks = [blocks] * depth if isinstance(blocks, Mapping) else list(blocks)
    require(
        len(blocks) == depth,
        f'layer_cfgs has {len(blocks)} entries but {owner} has {depth} blocks: give '
        'one dict for all, or one for each',
    )
    for number, block in enumerate(blocks, start=1):
        heads = block.get('num_heads', settings['num_heads'])
        require_number(owner, 'layer_cfgs.num_heads', heads, low=1, integer=True)
        start = f'layer_cfgs of {owner} has num_heads={heads}, but {heads} heads'
        require_division(f'{start} in block {number}', heads, width)


def loads_a_file(init_cfg: Mapping | Sequence[Mapping] | None) -> bool:
    """Whether an ``init_cfg`` loads a file, which nothing may be drawn over.

    One dict or a list of them; the type a name, with or without a scope, or the class.
    """
    steps = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    return any(_is_pretrained(step) for step in steps)


def _is_pretrained(step: Mapping) -> bool:
    kind = step.get('type')
    if isinstance(kind, type) and issubclass(kind, PretrainedInit):
        return True
    return type_name(kind) in ('Pretrained', 'PretrainedInit')


def block_index(layer: int, depth: int, owner: str) -> int:
    """The 0-based index of block ``layer``, which may count from the end.

    Raises:
        ValueError: where the network has no such block.
    """
    require_number(owner, 'layer', layer, integer=True)
    require(
        -depth <= layer < depth,
        f'layer={layer} is out of range: {owner} has {depth} blocks, so use 0 to '
        f'{depth - 1}, or -1 (the last) to {-depth}',
    )
    return layer % depth
