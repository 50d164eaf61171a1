"""Names of an encoder's weights in the layouts of the field: the table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from medic_mm.helpers import listed

#: Code bases whose names are known, in the order of the table's columns.
LAYOUTS = ('mmpretrain', 'mmseg', 'timm', 'mae', 'open_clip')

#: Those that can be converted to. A tower of open_clip has no place for the patch
#: embedding's bias and ends in a projection that the others do not have.
TARGETS = LAYOUTS[:4]

Row = tuple[str | None, ...]

# A row has one name a layout, None where it has no place for it; # is a block's number,
# * is weight or bias.
_BLOCK: tuple[Row, ...] = (
    ('ln1.*', 'ln1.*', 'norm1.*', 'norm1.*', 'ln_1.*'),
    ('attn.qkv.*', 'attn.qkv.*', 'attn.qkv.*', 'attn.qkv.*', 'attn.in_proj_*'),
    ('attn.proj.*', 'attn.proj.*', 'attn.proj.*', 'attn.proj.*', 'attn.out_proj.*'),
    ('attn.gamma1.weight', 'gamma_1', 'ls1.gamma', None, 'ls_1.gamma'),
    ('ln2.*', 'ln2.*', 'norm2.*', 'norm2.*', 'ln_2.*'),
    ('ffn.layers.0.0.*', 'ffn.layers.0.0.*', 'mlp.fc1.*', 'mlp.fc1.*', 'mlp.c_fc.*'),
    ('ffn.layers.1.*', 'ffn.layers.1.*', 'mlp.fc2.*', 'mlp.fc2.*', 'mlp.c_proj.*'),
    ('ffn.gamma2.weight', 'gamma_2', 'ls2.gamma', None, 'ls_2.gamma'),
)
_BLOCKS = ('backbone.layers', 'layers', 'blocks', 'blocks', 'transformer.resblocks')


def _in_block(row: Row) -> Row:
    return tuple(
        name and f'{start}.#.{name}' for start, name in zip(_BLOCKS, row, strict=True)
    )


_OUTER: tuple[Row, ...] = (
    ('backbone.cls_token', 'cls_token', 'cls_token', 'cls_token', 'class_embedding'),
    (
        'backbone.pos_embed',
        'pos_embed',
        'pos_embed',
        'pos_embed',
        'positional_embedding',
    ),
    (
        'backbone.patch_embed.projection.*',
        'patch_embed.projection.*',
        'patch_embed.proj.*',
        'patch_embed.proj.*',
        'conv1.*',
    ),
    ('backbone.pre_norm.*', None, 'norm_pre.*', None, 'ln_pre.*'),
    ('backbone.ln1.*', 'ln1.*', 'norm.*', 'norm.*', 'ln_post.*'),
    # after the mean of the patch tokens: fine-tuned networks only
    ('backbone.ln2.*', None, 'fc_norm.*', None, None),
)

# What the host's BEiT has beside its Vision Transformer.
_BEIT: tuple[Row, ...] = tuple(
    (f'backbone.{name}', None, None, None, None)
    for name in (
        'mask_token',
        'rel_pos_bias.relative_position_bias_table',
        'rel_pos_bias.relative_position_index',
        'layers.#.gamma_1',
        'layers.#.gamma_2',
        'layers.#.attn.q_bias',
        'layers.#.attn.v_bias',
        'layers.#.attn.relative_position_bias_table',
        'layers.#.attn.relative_position_index',
    )
)

#: Every weight of an encoder.
ENCODER: tuple[Row, ...] = (*_OUTER[:4], *map(_in_block, _BLOCK), *_OUTER[4:], *_BEIT)

_DECODER_PARTS = (
    ('mask_token', 'mask_token'),
    ('decoder_pos_embed', 'decoder_pos_embed'),
    ('decoder_embed.*', 'decoder_embed.*'),
    *(
        (f'decoder_blocks.#.{row[3]}', f'decoder_blocks.#.{row[0]}')
        for row in _BLOCK
        if row[3]
    ),
    ('decoder_norm.*', 'ln1.*'),
    ('decoder_pred.*', 'decoder_pred.*'),
)

#: Every weight of an MAE's decoder.
DECODER: tuple[Row, ...] = tuple(
    (f'neck.{host}', None, None, mae, None) for mae, host in _DECODER_PARTS
)


def detect_layout(names: Iterable[str]) -> str:
    """The layout that most of the names belong to: one of :data:`LAYOUTS`.

    An encoder alone has the same names in ``'mae'`` and in ``'timm'``, and is said to
    be of ``'mae'``.

    Raises:
        ValueError: where no name belongs to any of them.
    """
    names = list(names)
    known = {
        layout: sum(
            translate(name.removeprefix('visual.'), layout, layout) is not None
            for name in names
        )
        for layout in ('mae', *LAYOUTS)
    }
    best = max(known, key=known.__getitem__)
    if not known[best]:
        raise ValueError(
            f'none of the names ({listed(names)}) is of a known layout: the '
            "official MAE's or timm's (blocks.0.attn.qkv.weight), mmpretrain's "
            "(backbone.layers.0.attn.qkv.weight), mmseg's "
            "(layers.0.attn.qkv.weight) or open_clip's "
            '(visual.transformer.resblocks.0.attn.in_proj_weight)'
        )
    return best


def translate(name: str, source: str, target: str) -> str | None:
    """The name in ``target`` of one in ``source``.

    Returns:
        ``''`` where the target has no place for it, None where the source does not
        know the name.
    """
    for pattern, template in _rules(source, target):
        if found := pattern.fullmatch(name):
            return template.format(**found.groupdict())
    return None


@cache
def _rules(source: str, target: str) -> Sequence[tuple[re.Pattern[str], str]]:
    """Patterns that match whole names ('norm' is a part of 'decoder_norm')."""
    old, new = LAYOUTS.index(source), LAYOUTS.index(target)
    return [
        (_pattern(name), _template(row[new]))
        for row in ENCODER + DECODER
        if (name := row[old]) is not None
    ]


def _pattern(name: str) -> re.Pattern[str]:
    pattern = name.replace('.', r'\.')
    pattern = pattern.replace('#', r'(?P<block>\d+)')
    return re.compile(pattern.replace('*', '(?P<kind>weight|bias)'))


def _template(name: str | None) -> str:
    return (name or '').replace('#', '{block}').replace('*', '{kind}')
