"""Names of an encoder's weights in the layouts of the field, and their shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from torch import Tensor

from medic_mm.checkpoints.strict import require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

#: Code bases whose names are known, in the order of the table's columns.
LAYOUTS = ('mmpretrain', 'mmseg', 'timm', 'mae', 'open_clip')

#: Those that can be converted to. A tower of open_clip has no place for the patch
#: embedding's bias and ends in a projection that the others do not have.
TARGETS = LAYOUTS[:4]

Row = tuple[str | None, ...]

# A row has one name a layout: = is the name to its left, - no place for it, # a block's
# number, * weight or bias.
_OUTER = """
    cls_token                 =  =                   =  class_embedding
    pos_embed                 =  =                   =  positional_embedding
    patch_embed.projection.*  =  patch_embed.proj.*  =  conv1.*
    pre_norm.*                -  norm_pre.*          -  ln_pre.*
    ln1.*                     =  norm.*              =  ln_post.*
    ln2.*                     -  fc_norm.*           -  -
"""  # the last, after the mean of the patch tokens, is of fine-tuned networks only
_BLOCK = """
    ln1.*               =        norm1.*     =  ln_1.*
    attn.qkv.*          =        =           =  attn.in_proj_*
    attn.proj.*         =        =           =  attn.out_proj.*
    attn.gamma1.weight  gamma_1  ls1.gamma   -  ls_1.gamma
    ln2.*               =        norm2.*     =  ln_2.*
    ffn.layers.0.0.*    =        mlp.fc1.*   =  mlp.c_fc.*
    ffn.layers.1.*      =        mlp.fc2.*   =  mlp.c_proj.*
    ffn.gamma2.weight   gamma_2  ls2.gamma   -  ls_2.gamma
"""
_BLOCKS = ('backbone.layers', 'layers', 'blocks', 'blocks', 'transformer.resblocks')
# What mmpretrain's BEiT has besides its Vision Transformer.
_BEIT = """
    mask_token                                     -  -  -  -
    rel_pos_bias.relative_position_bias_table      -  -  -  -
    rel_pos_bias.relative_position_index           -  -  -  -
    layers.#.gamma_1                               -  -  -  -
    layers.#.gamma_2                               -  -  -  -
    layers.#.attn.q_bias                           -  -  -  -
    layers.#.attn.v_bias                           -  -  -  -
    layers.#.attn.relative_position_bias_table     -  -  -  -
    layers.#.attn.relative_position_index          -  -  -  -
"""
_DECODER = """
    mask_token         -  -  mask_token         -
    decoder_pos_embed  -  -  decoder_pos_embed  -
    decoder_embed.*    -  -  decoder_embed.*    -
    ln1.*              -  -  decoder_norm.*     -
    decoder_pred.*     -  -  decoder_pred.*     -
"""


def _rows(table: str, starts: Sequence[str]) -> Iterator[Row]:
    for line in table.strip().splitlines():
        cells = line.split()
        for place, cell in enumerate(cells):
            cells[place] = cells[place - 1] if cell == '=' else cell
        yield tuple(
            None if cell == '-' else start + cell
            for start, cell in zip(starts, cells, strict=True)
        )


_BACKBONE = ('backbone.', '', '', '', '')
_TABLE: tuple[Row, ...] = (
    *_rows(_OUTER, _BACKBONE),
    *_rows(_BLOCK, [f'{start}.#.' for start in _BLOCKS]),
    *_rows(_BEIT, _BACKBONE),
    *_rows(_DECODER, ('neck.', '', '', '', '')),
    *(
        (f'neck.decoder_blocks.#.{name}', None, None, f'decoder_blocks.#.{mae}', None)
        for name, _, _, mae, _ in _rows(_BLOCK, [''] * len(LAYOUTS))
        if mae
    ),
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
        (
            _pattern(name),
            (row[new] or '').replace('#', '{block}').replace('*', '{kind}'),
        )
        for row in _TABLE
        if (name := row[old]) is not None
    ]


def _pattern(name: str) -> re.Pattern[str]:
    pattern = name.replace('.', r'\.').replace('#', r'(?P<block>\d+)')
    return re.compile(pattern.replace('*', '(?P<kind>weight|bias)'))


def _template(name: str | None) -> str:
    return (name or '').replace('#', '{block}').replace('*', '{kind}')


# None is any number
Shape = tuple[int | None, ...]

_PATCHES = 'backbone.patch_embed.projection.weight'
_BIAS_TABLE = 'relative_position_bias_table'
_INDEX = 'relative_position_index'
# these come together
_PAIRS = (
    ('attn.gamma1.weight', 'ffn.gamma2.weight'),
    ('gamma_1', 'gamma_2'),
    ('attn.q_bias', 'attn.v_bias'),
)


def require_whole(
    weights: Mapping[str, Tensor], source: str, origin: str, decoder: bool
) -> None:
    """Refuse weights of which a Vision Transformer cannot be built as it was.

    The weights have mmpretrain's names (``backbone.*``, ``neck.*`` of an MAE); the
    sentence has those of ``source``. A last block that is missing cannot be seen here.

    Raises:
        FileError: names what is missing, too much, of another shape than the rest, or
            not a tensor of floating-point numbers.
    """
    used = {k: v for k, v in weights.items() if decoder or not k.startswith('neck.')}
    if not any(name.startswith('backbone.layers.') for name in used):
        raise FileError(
            f'{origin}: there is no backbone in it (it has {listed(weights)}): give '
            'the checkpoint of a pre-training or of a fine-tuned Vision Transformer'
        )

    def named(name: str) -> str:
        return translate(name, 'mmpretrain', source) or name

    def known(name: str) -> bool:
        if re.match(r'(backbone\.layers|neck\.decoder_blocks)\.\d+\..', name):
            return name in expected
        return translate(name, 'mmpretrain', 'mmpretrain') is not None

    require_numbers({named(k): v for k, v in used.items()}, origin, integers=[_INDEX])
    expected = _encoder_shapes(used, source)
    if any(name.startswith('neck.decoder_') for name in used):
        expected |= _decoder_shapes(used, expected['backbone.cls_token'][-1])
    problems = {
        'missing': [named(name) for name in expected if name not in used],
        'unexpected': [named(name) for name in used if not known(name)],
        'of another shape than the rest asks for:': [
            f'{named(name)} {tuple(used[name].shape)} in place of {_text(shape)}'
            for name, shape in expected.items()
            if name in used and not _fits(used[name].shape, shape)
        ],
    }
    if any(problems.values()):
        words = [f'{what} {listed(names)}' for what, names in problems.items() if names]
        raise FileError(f'{origin} is not a whole encoder: {"; ".join(words)}')


def _encoder_shapes(weights: Mapping[str, Tensor], source: str) -> dict[str, Shape]:
    """Names that must be there, and their shapes."""
    start = 'backbone.'
    inside = {n.removeprefix(start) for n in weights if n.startswith(start)}
    width = _width(weights, r'backbone\.(cls_token|(layers\.\d+\.)?ln\d\.weight)')
    kernel = weights.get(_PATCHES)
    patch: Shape = (None, None)
    if kernel is not None and kernel.dim() == 4:
        patch = kernel.shape[2:3] * 2
    shapes: dict[str, Shape] = {
        'cls_token': (1, 1, width),
        'patch_embed.projection.weight': (width, None, *patch),
    }
    relative = any(name.endswith(_BIAS_TABLE) for name in inside)
    if not relative or 'pos_embed' in inside:
        shapes['pos_embed'] = (1, None, width)
    # a tower of CLIP has none, but a norm before the blocks
    if source != 'open_clip' and 'pre_norm.weight' not in inside:
        shapes['patch_embed.projection.bias'] = (width,)
    starts = {name.partition('.')[0] for name in inside}
    norms = [norm for norm in ('pre_norm', 'ln1', 'ln2') if norm in starts]
    if not {'ln1', 'ln2'} & starts and source in ('mae', 'timm', 'open_clip'):
        norms.append('ln1')  # OpenMMLab's networks may do without a final norm
    for norm in norms:
        shapes |= {f'{norm}.weight': (width,), f'{norm}.bias': (width,)}
    blocks = _block_shapes(weights, 'backbone.layers.', width)
    return {f'{start}{name}': shape for name, shape in shapes.items()} | blocks


def _block_shapes(
    weights: Mapping[str, Tensor], start: str, width: int | None
) -> dict[str, Shape]:
    pattern = re.compile(re.escape(start) + r'(\d+)\.(.+)')
    found = [match for match in map(pattern.fullmatch, weights) if match]
    present = {match[2] for match in found}
    for pair in _PAIRS:
        if present & set(pair):
            present |= set(pair)
    hidden = _commonest(
        weights[match[0]].shape[-1 if 'layers.1' in match[2] else 0]
        for match in found
        if re.fullmatch(r'ffn\.layers\.(0\.0\.\w+|1\.weight)', match[2])
        and weights[match[0]].dim()
    )
    three = None if width is None else 3 * width
    flat = ('ln1.weight', 'ln1.bias', 'ln2.weight', 'ln2.bias')
    block: dict[str, Shape] = {
        'attn.qkv.weight': (three, width),
        'attn.proj.weight': (width, width),
        'ffn.layers.0.0.weight': (hidden, width),
        'ffn.layers.0.0.bias': (hidden,),
        'ffn.layers.1.weight': (width, hidden),
        **dict.fromkeys((*flat, 'attn.proj.bias', 'ffn.layers.1.bias'), (width,)),
    }
    # either all blocks have these or none
    optional: dict[str, Shape] = {
        **{name: (width,) for pair in _PAIRS for name in pair},
        'attn.qkv.bias': (three,),
        f'attn.{_BIAS_TABLE}': (None, None),
        f'attn.{_INDEX}': (None, None),
    }
    block |= {name: shape for name, shape in optional.items() if name in present}
    depth = max((int(match[1]) for match in found), default=0) + 1
    return {
        f'{start}{number}.{name}': shape
        for number in range(depth)
        for name, shape in block.items()
    }


def _decoder_shapes(
    weights: Mapping[str, Tensor], encoder_width: int | None
) -> dict[str, Shape]:
    width = _width(weights, r'neck\.(mask_token|.*ln\d\.weight)')
    positions = weights.get('backbone.pos_embed')
    count = None
    if positions is not None and positions.dim() == 3:
        count = positions.shape[1]
    kernel = weights.get(_PATCHES)
    predictions = [
        weights[name]
        for name in ('neck.decoder_pred.weight', 'neck.decoder_pred.bias')
        if name in weights and weights[name].dim()
    ]
    pixels = _commonest(
        [len(value) for value in predictions]
        + ([kernel[0].numel()] if kernel is not None else [])
    )
    shapes: dict[str, Shape] = {
        'mask_token': (1, 1, width),
        'decoder_pos_embed': (1, count, width),
        'decoder_embed.weight': (width, encoder_width),
        'decoder_embed.bias': (width,),
        'ln1.weight': (width,),
        'ln1.bias': (width,),
        'decoder_pred.weight': (pixels, width),
        'decoder_pred.bias': (pixels,),
    }
    blocks = _block_shapes(weights, 'neck.decoder_blocks.', width)
    return {f'neck.{name}': shape for name, shape in shapes.items()} | blocks


def _width(weights: Mapping[str, Tensor], pattern: str) -> int | None:
    return _commonest(
        value.shape[-1]
        for name, value in weights.items()
        if re.fullmatch(pattern, name) and value.dim()
    )


def _commonest(sizes: Iterable[int]) -> int | None:
    counted = Counter(sizes).most_common(1)
    return counted[0][0] if counted else None


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        want in (None, have) for have, want in zip(shape, expected, strict=True)
    )


def _text(shape: Shape) -> str:
    sides = ', '.join('any' if side is None else str(side) for side in shape)
    return f'({sides}{"," if len(shape) == 1 else ""})'
