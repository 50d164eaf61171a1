"""Recognise the checkpoints of other code bases and bring them into a known layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from medic_mm.checkpoints.layouts import detect_layout, translate
from medic_mm.checkpoints.strict import require_numbers
from medic_mm.errors import FileError
from medic_mm.helpers import listed

_Weights = dict[str, Tensor]

#: Why a fine-tuned network's last layer is left out.
CLASSIFIER = 'classifier'

# wrappers of torch: distributed training and torch.compile
_WRAPPERS = ('module.', '_orig_mod.')
_TEACHERS = ('teacher.', 'target_generator.')

# Released MEDiC and MaskDistill (aicip/MEDiC, drkostas/MaskDistill-PyTorch).
_STUDENT = 'student.'
_RELEASED = re.compile(r'blocks\.\d+\.(gamma_[12]|attn\.[qv]_bias)')

# transformers' ViT and ViTMAE, with 'vit.' below a head: the files of all versions (in
# 5 the decoder's blocks got another name), and the names of the networks of version 5
_HUGGING_FACE = re.compile(r'(vit\.)?embeddings\.(cls_token|position_embeddings|patch)')
_PARTS = (('query', 'key', 'value'), ('q_proj', 'k_proj', 'v_proj'))
_HUGGING_FACE_OUTSIDE = {
    'classifier.': CLASSIFIER,
    'pooler.': 'pooler, which only a classifier uses',
    'decoder.0.': 'decoder of masked image modelling',
    'embeddings.mask_token': 'mask token of pre-training',
}
_HUGGING_FACE_NAMES = (
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.position_embeddings', 'pos_embed'),
    ('embeddings.patch_embeddings.projection.', 'patch_embed.proj.'),
    ('encoder.layer.', 'blocks.'),
    ('layers.', 'blocks.'),
    ('layernorm.', 'norm.'),
    ('decoder.decoder_layers.', 'decoder_blocks.'),
    ('decoder.decoder_encoder.layer.', 'decoder_blocks.'),
    ('decoder.', ''),
)
_HUGGING_FACE_BLOCK = (
    ('attention.attention.', 'attn.'),
    ('attention.output.dense.', 'attn.proj.'),
    ('attention.o_proj.', 'attn.proj.'),
    ('attention.', 'attn.'),
    ('layernorm_before.', 'norm1.'),
    ('layernorm_after.', 'norm2.'),
    ('intermediate.dense.', 'mlp.fc1.'),
    ('output.dense.', 'mlp.fc2.'),
)


def recognise(state_dict: Mapping[str, Tensor]) -> tuple[_Weights, str, dict[str, str]]:
    """Find the layout of a checkpoint, and rename what is in none of ours.

    Besides the layouts themselves: weights of distributed or compiled networks
    (``module.``, ``_orig_mod.``), the released MEDiC and MaskDistill
    (``module.student.*``, or the student alone), TinyMIM (the official MAE's names),
    Hugging Face's ViT and ViTMAE, a bare ``VisionTransformer`` of mmpretrain, and a
    segmentor with mmseg's MAE in it.

    Returns:
        The weights, their layout, and the names left out, each with a reason.

    Raises:
        ValueError: where the checkpoint is a teacher's alone, or of no known layout.
    """
    weights = _unwrap(dict(state_dict))
    if weights and all(name.startswith(_TEACHERS) for name in weights):
        raise FileError(
            f'the weights are those of a teacher alone ({listed(weights)}): give '
            "the student's checkpoint"
        )
    if any(name.startswith(_STUDENT) for name in weights) or any(
        _RELEASED.fullmatch(name) for name in weights
    ):
        return _from_released(weights)
    if any(map(_HUGGING_FACE.match, weights)):
        return _from_hugging_face(weights)
    if _is_bare_mmpretrain(weights):
        return below_backbone(weights), 'mmpretrain', {}
    if any(name.startswith('decode_head.') for name in weights) and any(
        re.fullmatch(r'backbone\.layers\.\d+\.gamma_1', name) for name in weights
    ):
        return weights, 'mmseg', {}
    layout = detect_layout(weights)
    if layout == 'mae' and any(name.startswith('head.') for name in weights):
        layout = 'timm'  # the encoder has the same names, and a classifier a place
    return weights, layout, {}


def _unwrap(weights: _Weights) -> _Weights:
    for prefix in _WRAPPERS * 2:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights


def _from_released(weights: _Weights) -> tuple[_Weights, str, dict[str, str]]:
    """Into timm's names, or those of mmpretrain's BEiT if positions are relative."""
    left_out = {}
    if any(name.startswith(_STUDENT) for name in weights):
        others = [name for name in weights if not name.startswith(_STUDENT)]
        left_out = dict.fromkeys(others, 'not part of the student')
        weights = {
            name.removeprefix(_STUDENT): value
            for name, value in weights.items()
            if name not in left_out
        }
    if any('relative_position_bias_table' in name for name in weights):
        found = [(name, _name_in_beit(name), value) for name, value in weights.items()]
        return renamed_once(found), 'mmpretrain', left_out
    if weights.pop('mask_token', None) is not None:
        left_out['mask_token'] = 'mask token of pre-training'
    found = [
        (name, re.sub(r'\.gamma_([12])$', r'.ls\1.gamma', name), value)
        for name, value in _join_biases(weights).items()
    ]
    return renamed_once(found), 'timm', left_out


def _join_biases(weights: _Weights) -> _Weights:
    """Queries and values have a bias of their own, keys have none: zeros."""
    found = []
    for name, value in weights.items():
        if not name.endswith(('attn.q_bias', 'attn.v_bias')):
            found.append((name, name, value))
            continue
        start = name[: -len('q_bias')]
        both = [f'{start}q_bias', f'{start}v_bias']
        if name == both[0] or both[0] not in weights:
            query, values = _stacked(both, weights).chunk(2)
            joined = torch.cat([query, torch.zeros_like(query), values])
            found.append((name, f'{start}qkv.bias', joined))
    return renamed_once(found)


def _name_in_beit(name: str) -> str:
    """mmpretrain's BEiT keeps the names, below ``backbone.``, but for the blocks."""
    if name.startswith('head.'):
        return name
    below = re.sub(r'^blocks\.', 'layers.', name)
    return translate(name, 'timm', 'mmpretrain') or f'backbone.{below}'


def _from_hugging_face(weights: _Weights) -> tuple[_Weights, str, dict[str, str]]:
    """Into the official MAE's names, with queries, keys and values stacked."""
    left_out = {}
    found: list[tuple[str, str, Tensor]] = []
    for name, value in weights.items():
        short = name.removeprefix('vit.')
        outside = next(filter(short.startswith, _HUGGING_FACE_OUTSIDE), None)
        if outside:
            left_out[name] = _HUGGING_FACE_OUTSIDE[outside]
            continue
        new = _rename_start(short, _HUGGING_FACE_NAMES)
        block = re.match(r'(?:decoder_)?blocks\.\d+\.', new)
        if block:
            new = block[0] + _rename_start(new[block.end() :], _HUGGING_FACE_BLOCK)
        part = re.fullmatch(r'(.*\.attn\.)(\w+)\.(weight|bias)', new)
        style = [style for style in _PARTS if part and part[2] in style]
        if part is None or not style:
            found.append((name, new, value))
            continue
        start, _, end = name.rpartition(f'.{part[2]}.')
        three = [f'{start}.{which}.{end}' for which in style[0]]
        # once, at the first of the three that is there
        if name == next(other for other in three if other in weights):
            stacked = _stacked(three, weights)
            found.append((name, f'{part[1]}qkv.{part[3]}', stacked))
    return renamed_once(found), 'mae', left_out


def _stacked(names: Sequence[str], weights: Mapping[str, Tensor]) -> Tensor:
    """Queries, keys and values in one tensor, where all are there and alike."""
    missing = [name for name in names if name not in weights]
    if missing:
        given = next(name for name in names if name in weights)
        raise FileError(f'{given} has no {listed(missing)} next to it')
    parts = {name: weights[name] for name in names}
    require_numbers({k: v for k, v in parts.items() if not v.is_meta}, 'the checkpoint')
    if len({(tuple(value.shape), value.dtype) for value in parts.values()}) > 1:
        shapes = [f'{name} {tuple(value.shape)}' for name, value in parts.items()]
        raise FileError(f'{listed(shapes)} are not of one shape and type')
    return torch.cat(list(parts.values()))


def renamed_once(found: Iterable[tuple[str, str, Tensor]]) -> _Weights:
    """Weights under new names, from old name, new name and value of each.

    Raises:
        FileError: where two of them get the same name.
    """
    origins: dict[str, str] = {}
    renamed: _Weights = {}
    for old, new, value in found:
        if new in renamed:
            raise FileError(f'{origins[new]} and {old} are the same weight ({new})')
        origins[new], renamed[new] = old, value
    return renamed


def below_backbone(weights: _Weights) -> _Weights:
    """A network of mmpretrain's own as a part of an algorithm: ``backbone.*``."""
    if any(name.startswith('backbone.') for name in weights):
        return weights
    below = {f'backbone.{name}': value for name, value in weights.items()}
    return below if any(map(_of_mmpretrain, below)) else weights


def _is_bare_mmpretrain(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are a network of mmpretrain's own, without ``backbone.``.

    Most of its names are mmseg's too; LayerScale and some norms are not.
    """
    return all(_of_mmpretrain(f'backbone.{name}') for name in weights) and any(
        translate(name, 'mmseg', 'mmseg') is None and 'relative_position' not in name
        for name in weights
    )


def _of_mmpretrain(name: str) -> bool:
    return translate(name, 'mmpretrain', 'mmpretrain') is not None


def _rename_start(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        if name.startswith(old):
            return new + name[len(old) :]
    return name
