"""Names of weights in the layouts of the field, and the way between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from torch import Tensor

#: Layouts that hold an MAE: of facebookresearch/mae, and of mmpretrain's checkpoints.
LAYOUTS = ('mae', 'mmpretrain')

# the name in 'mae', the name in 'mmpretrain'; # is a block's number, * weight or bias
_BLOCK = (
    ('norm1.*', 'ln1.*'),
    ('attn.qkv.*', 'attn.qkv.*'),
    ('attn.proj.*', 'attn.proj.*'),
    ('norm2.*', 'ln2.*'),
    ('mlp.fc1.*', 'ffn.layers.0.0.*'),
    ('mlp.fc2.*', 'ffn.layers.1.*'),
)
_ENCODER = (
    ('cls_token', 'backbone.cls_token'),
    ('pos_embed', 'backbone.pos_embed'),
    ('patch_embed.proj.*', 'backbone.patch_embed.projection.*'),
    *((f'blocks.#.{mae}', f'backbone.layers.#.{host}') for mae, host in _BLOCK),
    ('norm.*', 'backbone.ln1.*'),
)
_DECODER = (
    ('mask_token', 'neck.mask_token'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed'),
    ('decoder_embed.*', 'neck.decoder_embed.*'),
    *(
        (f'decoder_blocks.#.{mae}', f'neck.decoder_blocks.#.{host}')
        for mae, host in _BLOCK
    ),
    ('decoder_norm.*', 'neck.ln1.*'),
    ('decoder_pred.*', 'neck.decoder_pred.*'),
)


def detect_layout(names: Iterable[str]) -> str:
    """The layout that most of the names belong to: one of :data:`LAYOUTS`.

    Raises:
        ValueError: where no name belongs to any of them.
    """
    names = list(names)
    known = {
        layout: sum(_translate(name, layout, layout) is not None for name in names)
        for layout in LAYOUTS
    }
    best = max(LAYOUTS, key=known.__getitem__)
    if not known[best]:
        raise ValueError(
            f'none of the names ({_first(names)}) is of a known layout: the official '
            "MAE's (blocks.0.attn.qkv.weight) or mmpretrain's "
            '(backbone.layers.0.attn.qkv.weight)'
        )
    return best


def convert_keys(
    state_dict: Mapping[str, Tensor], source: str, target: str
) -> dict[str, Tensor]:
    """Rename the weights of an MAE; no value is copied or changed.

    Queries, keys and values are stacked alike in both layouts, so names are all that
    differs. Position embeddings are carried over as they are: the grids that the two
    code bases would draw are transposed to each other.

    Args:
        state_dict: Weights of an encoder, a decoder or both.
        source: Layout of ``state_dict``, one of :data:`LAYOUTS`.
        target: Layout wanted.

    Raises:
        ValueError: for an unknown layout, or names that the source layout does not
            have.
    """
    for setting, layout in (('source', source), ('target', target)):
        if layout not in LAYOUTS:
            raise ValueError(
                f'{setting}={layout!r} is no known layout: use one of '
                f'{", ".join(LAYOUTS)}'
            )
    renamed = {name: _translate(name, source, target) for name in state_dict}
    unknown = [name for name, new in renamed.items() if new is None]
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(renamed)} names do not belong to an MAE in the '
            f'layout {source!r}: {_first(unknown)}'
        )
    return {str(renamed[name]): value for name, value in state_dict.items()}


def _translate(name: str, source: str, target: str) -> str | None:
    for pattern, template in _rules(source, target):
        if found := pattern.fullmatch(name):
            return template.format(**found.groupdict())
    return None


@cache
def _rules(source: str, target: str) -> Sequence[tuple[re.Pattern[str], str]]:
    """Patterns that match whole names ('norm' is a part of 'decoder_norm')."""
    old, new = LAYOUTS.index(source), LAYOUTS.index(target)
    return [(_pattern(row[old]), _template(row[new])) for row in _ENCODER + _DECODER]


def _pattern(name: str) -> re.Pattern[str]:
    pattern = name.replace('.', r'\.')
    pattern = pattern.replace('#', r'(?P<block>\d+)')
    return re.compile(pattern.replace('*', '(?P<kind>weight|bias)'))


def _template(name: str) -> str:
    return name.replace('#', '{block}').replace('*', '{kind}')


def _first(names: Sequence[str], most: int = 4) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return (', '.join(names[:most]) or 'nothing') + more
