"""Recognise the checkpoints of other code bases and bring them into a known layout."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from medic_mm.checkpoints.layouts import detect_layout, translate
from medic_mm.helpers import listed

_Weights = dict[str, Tensor]

# wrappers of torch: distributed training and torch.compile
_WRAPPERS = ('module.', '_orig_mod.')
_TEACHERS = ('teacher.', 'target_generator.')

# Released MEDiC and MaskDistill (aicip/MEDiC, drkostas/MaskDistill-PyTorch).
_STUDENT = 'student.'
_RELEASED = re.compile(r'blocks\.\d+\.(gamma_[12]|attn\.[qv]_bias)')
_TO_TIMM = {'gamma_1': 'ls1.gamma', 'gamma_2': 'ls2.gamma'}

# transformers.ViTMAEForPreTraining, and ViTMAEModel without 'vit.'
_HUGGING_FACE = re.compile(r'(vit\.)?embeddings\.(cls_token|position_embeddings|patch)')
_PARTS = ('query', 'key', 'value')
_HUGGING_FACE_NAMES = (
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.position_embeddings', 'pos_embed'),
    ('embeddings.patch_embeddings.projection.', 'patch_embed.proj.'),
    ('encoder.layer.', 'blocks.'),
    ('layernorm.', 'norm.'),
    ('decoder.decoder_layers.', 'decoder_blocks.'),
    ('decoder.', ''),
)
_HUGGING_FACE_BLOCK = (
    ('attention.attention.', 'attn.'),
    ('attention.output.dense.', 'attn.proj.'),
    ('layernorm_before.', 'norm1.'),
    ('layernorm_after.', 'norm2.'),
    ('intermediate.dense.', 'mlp.fc1.'),
    ('output.dense.', 'mlp.fc2.'),
)


def recognise(state_dict: Mapping[str, Tensor]) -> tuple[_Weights, str, dict[str, str]]:
    """Find the layout of a checkpoint, and rename what is in none of ours.

    Beside the layouts themselves: weights of distributed or compiled networks
    (``module.``, ``_orig_mod.``), the released MEDiC and MaskDistill
    (``module.student.*``, or the student alone), TinyMIM (the official MAE's names),
    Hugging Face's ViTMAE, a bare ``VisionTransformer`` of mmpretrain, and a segmentor
    with mmseg's MAE in it.

    Returns:
        The weights, their layout, and the names left out, each with a reason.

    Raises:
        ValueError: where the checkpoint is a teacher's alone, or of no known layout.
    """
    weights = _unwrap(dict(state_dict))
    if weights and all(name.startswith(_TEACHERS) for name in weights):
        raise ValueError(
            f'the weights are those of a teacher alone ({listed(weights)}): give '
            "the student's checkpoint"
        )
    if any(name.startswith(_STUDENT) for name in weights) or any(
        _RELEASED.fullmatch(name) for name in weights
    ):
        return _from_released(weights)
    if any(map(_HUGGING_FACE.match, weights)):
        return _from_hugging_face(weights), 'mae', {}
    if any(
        re.fullmatch(r'layers\.\d+\.attn\.gamma1\.weight', name) for name in weights
    ):
        return {f'backbone.{k}': v for k, v in weights.items()}, 'mmpretrain', {}
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
        left_out = {
            name: 'not part of the student'
            for name in weights
            if not name.startswith(_STUDENT)
        }
        weights = {
            name.removeprefix(_STUDENT): value
            for name, value in weights.items()
            if name.startswith(_STUDENT)
        }
    if any('relative_position_bias_table' in name for name in weights):
        return _to_beit(weights), 'mmpretrain', left_out
    if weights.pop('mask_token', None) is not None:
        left_out['mask_token'] = 'mask token of pre-training'
    renamed = {}
    for name, value in _join_biases(weights).items():
        start, _, last = name.rpartition('.')
        renamed[f'{start}.{_TO_TIMM[last]}' if last in _TO_TIMM else name] = value
    return renamed, 'timm', left_out


def _join_biases(weights: _Weights) -> _Weights:
    """Queries and values have a bias of their own, keys have none: zeros."""
    joined = {}
    for name, value in weights.items():
        if name.endswith('attn.q_bias'):
            start = name.removesuffix('q_bias')
            values = weights[f'{start}v_bias']
            parts = (value, torch.zeros_like(value), values)
            joined[f'{start}qkv.bias'] = torch.cat(parts)
        elif not name.endswith('attn.v_bias'):
            joined[name] = value
    return joined


def _to_beit(weights: _Weights) -> _Weights:
    """The host's BEiT keeps these names, below ``backbone.``, but for the blocks."""
    renamed = {}
    for name, value in weights.items():
        new = translate(name, 'timm', 'mmpretrain')
        if not new:
            new = 'backbone.' + re.sub(r'^blocks\.', 'layers.', name)
        if not name.startswith('head.'):
            renamed[new] = value
        else:
            renamed[name] = value
    return renamed


def _from_hugging_face(weights: _Weights) -> _Weights:
    """Into the official MAE's names, with queries, keys and values stacked."""
    renamed: _Weights = {}
    for name, value in weights.items():
        new = _rename_start(name.removeprefix('vit.'), _HUGGING_FACE_NAMES)
        block = re.match(r'(?:decoder_)?blocks\.\d+\.', new)
        if block:
            new = block[0] + _rename_start(new[block.end() :], _HUGGING_FACE_BLOCK)
        part = re.fullmatch(r'(.*\.attn\.)(query|key|value)\.(weight|bias)', new)
        if part is None:
            renamed[new] = value
        elif part[2] == 'query':
            others = [name.replace('.query.', f'.{other}.') for other in _PARTS]
            missing = [other for other in others if other not in weights]
            if missing:
                raise ValueError(f'{name} has no {listed(missing)} beside it')
            stacked = torch.cat([weights[other] for other in others])
            renamed[f'{part[1]}qkv.{part[3]}'] = stacked
    return renamed


def _rename_start(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        if name.startswith(old):
            return new + name[len(old) :]
    return name
