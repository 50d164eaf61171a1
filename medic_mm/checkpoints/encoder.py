"""Whether a checkpoint holds a whole encoder, with each weight once and in shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from medic_mm.checkpoints.layouts import translate
from medic_mm.checkpoints.values import require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

# None is any number
Shape = tuple[int | None, ...]

_BIAS_TABLE = 'relative_position_bias_table'
_INDEX = 'relative_position_index'
_PAIR = ('weight', 'bias')
# per block, either all blocks have these or none
_OPTIONAL = (
    'attn.gamma1.weight',
    'ffn.gamma2.weight',
    'gamma_1',
    'gamma_2',
    'attn.qkv.bias',
    'attn.q_bias',
    'attn.v_bias',
    f'attn.{_BIAS_TABLE}',
    f'attn.{_INDEX}',
)
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

    Of a block that is missing at the end nothing can be seen here.

    Args:
        weights: In mmpretrain's names: ``backbone.*``, and ``neck.*`` of an MAE.
        source: The layout that they came from, whose names the sentence has.
        origin: The file, to begin the sentence.
        decoder: Whether the decoder is used as well.

    Raises:
        FileError: names what is missing, too much, of another shape than the rest, or
            no floating-point numbers.
    """
    used = {
        name: value
        for name, value in weights.items()
        if decoder or not name.startswith('neck.')
    }
    if not any(name.startswith('backbone.layers.') for name in used):
        raise FileError(
            f'{origin}: there is no backbone in it (it has {listed(weights)}): give '
            'the checkpoint of a pre-training or of a fine-tuned Vision Transformer'
        )
    named = {_named(name, source): value for name, value in used.items()}
    require_numbers(named, origin, integers=[_INDEX])
    expected = _encoder_shapes(used, source)
    if any(name.startswith('neck.decoder_') for name in used):
        width = expected['backbone.cls_token'][-1]
        expected |= _decoder_shapes(used, width)
    missing = [_named(name, source) for name in expected if name not in used]
    surplus = [_named(name, source) for name in used if not _known(name, expected)]
    reshaped = [
        f'{_named(name, source)} {tuple(used[name].shape)} in place of {_text(shape)}'
        for name, shape in expected.items()
        if name in used and not _fits(tuple(used[name].shape), shape)
    ]
    problems = [
        f'{problem} {listed(names)}'
        for problem, names in (
            ('missing', missing),
            ('unexpected', surplus),
            ('of another shape than the rest asks for:', reshaped),
        )
        if names
    ]
    if problems:
        raise FileError(f'{origin} is not a whole encoder: {"; ".join(problems)}')


def _encoder_shapes(weights: Mapping[str, Tensor], source: str) -> dict[str, Shape]:
    """Names that must be there, and their shapes."""
    start = 'backbone.'
    inside = {n.removeprefix(start) for n in weights if n.startswith(start)}
    width = _commonest(
        value.shape[-1]
        for name, value in weights.items()
        if re.fullmatch(r'backbone\.(cls_token|(layers\.\d+\.)?ln\d\.weight)', name)
        and value.dim()
    )
    shapes: dict[str, Shape] = {
        'cls_token': (1, 1, width),
        'patch_embed.projection.weight': (width, None, *_patch(weights)),
    }
    relative = any(name.endswith(_BIAS_TABLE) for name in inside)
    if not relative or 'pos_embed' in inside:
        shapes['pos_embed'] = (1, None, width)
    # a tower of CLIP has none, but a norm before the blocks
    if source != 'open_clip' and 'pre_norm.weight' not in inside:
        shapes['patch_embed.projection.bias'] = (width,)
    norms = [n for n in ('pre_norm', 'ln1', 'ln2') if _any(inside, f'{n}.')]
    if not {'ln1', 'ln2'} & set(norms) and source in ('mae', 'timm', 'open_clip'):
        norms.append('ln1')  # those of the hosts may do without a final norm
    for norm in norms:
        shapes |= {f'{norm}.weight': (width,), f'{norm}.bias': (width,)}
    blocks = _block_shapes(weights, 'backbone.layers.', width)
    return {f'{start}{name}': shape for name, shape in shapes.items()} | blocks


def _patch(weights: Mapping[str, Tensor]) -> Shape:
    """Sides of the patch embedding's kernel, which is square."""
    kernel = weights.get('backbone.patch_embed.projection.weight')
    return (
        (None, None) if kernel is None or kernel.dim() != 4 else kernel.shape[2:3] * 2
    )


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
    block: dict[str, Shape] = {
        'attn.qkv.weight': (three, width),
        'attn.proj.weight': (width, width),
        'ffn.layers.0.0.weight': (hidden, width),
        'ffn.layers.0.0.bias': (hidden,),
        'ffn.layers.1.weight': (width, hidden),
    }
    flat = ('ln1.weight', 'ln1.bias', 'ln2.weight', 'ln2.bias')
    block |= dict.fromkeys((*flat, 'attn.proj.bias', 'ffn.layers.1.bias'), (width,))
    for name in _OPTIONAL:
        if name in present:
            block[name] = (width,)
    block |= {name: (three,) for name in ('attn.qkv.bias',) if name in present}
    for name in (f'attn.{_BIAS_TABLE}', f'attn.{_INDEX}'):
        if name in present:
            block[name] = (None, None)
    depth = max((int(match[1]) for match in found), default=0) + 1
    return {
        f'{start}{number}.{name}': shape
        for number in range(depth)
        for name, shape in block.items()
    }


def _decoder_shapes(
    weights: Mapping[str, Tensor], encoder_width: int | None
) -> dict[str, Shape]:
    width = _commonest(
        value.shape[-1]
        for name, value in weights.items()
        if re.fullmatch(r'neck\.(mask_token|.*ln\d\.weight)', name) and value.dim()
    )
    shapes: dict[str, Shape] = {
        'mask_token': (1, 1, width),
        'decoder_pos_embed': (1, None, width),
        'decoder_embed.weight': (width, encoder_width),
        'decoder_embed.bias': (width,),
        'ln1.weight': (width,),
        'ln1.bias': (width,),
    }
    positions = weights.get('backbone.pos_embed')
    if positions is not None and positions.dim() == 3:
        shapes['decoder_pos_embed'] = (1, positions.shape[1], width)
    kernel = weights.get('backbone.patch_embed.projection.weight')
    pixels = _commonest(
        [
            len(weights[name])
            for name in map('neck.decoder_pred.{}'.format, _PAIR)
            if name in weights and weights[name].dim()
        ]
        + ([kernel[0].numel()] if kernel is not None else [])
    )
    shapes |= {'decoder_pred.weight': (pixels, width), 'decoder_pred.bias': (pixels,)}
    blocks = _block_shapes(weights, 'neck.decoder_blocks.', width)
    return {f'neck.{name}': shape for name, shape in shapes.items()} | blocks


def _known(name: str, expected: Mapping[str, Shape]) -> bool:
    """Whether a name is expected, or may stand beside what is."""
    block = re.fullmatch(r'(?:backbone\.layers|neck\.decoder_blocks)\.(\d+)\..+', name)
    if block:
        return name in expected
    return translate(name, 'mmpretrain', 'mmpretrain') is not None


def _named(name: str, source: str) -> str:
    """The name in the source's layout, where it has one."""
    return translate(name, 'mmpretrain', source) or name


def _any(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


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
