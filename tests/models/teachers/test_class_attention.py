"""Attention of class tokens, of students and teachers, against literal softmaxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_towers
import torch
from mmpretrain.models.utils import resize_pos_embed
from tiny import TinyTeacher
from tiny_mimhd import STUDENT, mimhd_config
from torch import Tensor, nn

from medic_mm.models.teachers import CachedTeacher, OpenCLIPTeacher, TimmTeacher
from medic_mm.models.vit.attention import (
    ClassAttention,
    choose_block,
    join_batches,
    student_attention,
)
from medic_mm.registry import MODELS

BACKBONES = {
    'medic_mm.MaskedViT': dict(layer_scale_init_value=0.1),
    'medic_mm.RelationViT': dict(block_heads=4),
    'mmpretrain.MAEViT': {},
    'mmpretrain.VisionTransformer': dict(out_type='cls_token', pre_norm=True),
}


def roughened(network: nn.Module) -> nn.Module:
    """Weights under which heads differ and look at few patches."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    network.eval()  # which the host's backbones do not return
    return network


def build(kind: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    config = dict(type=kind, arch=dict(STUDENT), img_size=32, patch_size=8, **settings)
    return roughened(MODELS.build(config))


def batch(height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=generator)


def literal_rows(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt d) of token 0, in loops: ``(B, N, D)`` -> ``(B, M, N)``."""
    images, tokens, width = x.shape
    depth = width // heads
    rows = torch.zeros(images, heads, tokens)
    for b in range(images):
        query = weight[:width] @ x[b, 0] + bias[:width]
        for m in range(heads):
            part = slice(m * depth, (m + 1) * depth)
            for n in range(tokens):
                key = weight[width : 2 * width] @ x[b, n] + bias[width : 2 * width]
                rows[b, m, n] = (query[part] @ key[part]) / depth**0.5
            rows[b, m] = rows[b, m].exp() / rows[b, m].exp().sum()
    return rows


def tokens_before(backbone: nn.Module, images: Tensor, block: int) -> Tensor:
    """What enters the attention of a block of the host's ViT."""
    patches, grid = backbone.patch_embed(images)
    x = torch.cat([backbone.cls_token.expand(len(images), -1, -1), patches], dim=1)
    positions = resize_pos_embed(
        backbone.pos_embed, backbone.patch_resolution, grid, 'bicubic'
    )
    x = backbone.pre_norm(x + positions)
    for layer in backbone.layers[: block - 1]:
        x = layer(x)
    return backbone.layers[block - 1].ln1(x)


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('block', [None, 2])
@torch.no_grad()
def test_student_maps_are_the_softmax_of_the_layers_weights(kind, block):
    backbone = build(kind, **BACKBONES[kind])
    number = block or 3
    found = student_attention(backbone, batch(), block)
    heads = 4 if kind == 'medic_mm.RelationViT' and number == 3 else 3
    layer = backbone.layers[number - 1].attn.qkv
    x = tokens_before(backbone, batch(), number)
    expected = literal_rows(x, layer.weight, layer.bias, heads)
    torch.testing.assert_close(
        found.weights.flatten(2), expected[:, :, 1:], atol=1e-5, rtol=1e-4
    )
    assert (found.owner, found.block, found.mean_of) == ('student', number, None)
    assert found.weights.shape == (2, heads, 4, 4)
    # what is missing to 1 is the class token's own share
    share = 1 - found.weights.sum(dim=(2, 3))
    torch.testing.assert_close(share, expected[:, :, 0], atol=1e-5, rtol=1e-3)
    assert found.labels[-1] == f'student, head {heads} of {heads}'


@torch.no_grad()
def test_maps_have_the_grid_of_the_images():
    backbone = build('mmpretrain.VisionTransformer')
    images = batch(16, 48)
    found = student_attention(backbone, images, 1)
    qkv = backbone.layers[0].attn.qkv
    x = tokens_before(backbone, images, 1)
    expected = literal_rows(x, qkv.weight, qkv.bias, 3)[:, :, 1:]
    torch.testing.assert_close(
        found.weights, expected.reshape(2, 3, 2, 6), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_position_biases_of_beit_count():
    backbone = build(
        'mmpretrain.BEiTViT', use_shared_rel_pos_bias=False, use_rel_pos_bias=True
    )
    attn = backbone.layers[0].attn
    attn.relative_position_bias_table.data.mul_(10)
    seen = []
    handle = attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = student_attention(backbone, batch(), 1)
    handle.remove()
    zeros = torch.zeros_like(attn.q_bias)
    bias = torch.cat([attn.q_bias, zeros, attn.v_bias])
    plain = literal_rows(seen[0], attn.qkv.weight, bias, 3)
    table = attn.relative_position_bias_table[attn.relative_position_index[0]]
    biased = plain * table.T.exp()  # adding to a logit multiplies its softmax
    expected = biased / biased.sum(-1, keepdim=True)
    torch.testing.assert_close(
        found.weights.flatten(2), expected[:, :, 1:], atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(expected, plain, atol=0.01)


def test_blocks_and_backbones_that_cannot_be_read_are_refused():
    backbone = build('medic_mm.RelationViT')
    assert choose_block(backbone) == 3
    for block in (0, 4):
        with pytest.raises(ValueError, match=f'block={block} .* blocks 1 to 3'):
            student_attention(backbone, batch(), block)
    headless = build(
        'mmpretrain.VisionTransformer', with_cls_token=False, out_type='raw'
    )
    swin = MODELS.build(dict(type='mmpretrain.SwinTransformer'))
    for other in (headless, swin):
        with pytest.raises(ValueError, match=f'from {type(other).__name__}: it takes'):
            choose_block(other)


@torch.no_grad()
def test_mae_teacher_shows_every_head_of_its_block():
    teacher = MODELS.build(mimhd_config()['target_generator'])
    teacher.init_weights()
    roughened(teacher.network)
    raw, images = small_towers.images()
    found = teacher.class_attention(images, small_towers.MEAN, small_towers.STD)
    encoder = teacher.network['backbone']
    own = small_towers.normalised(raw, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    x = tokens_before(encoder, own, 3)
    qkv = encoder.layers[2].attn.qkv
    expected = literal_rows(x, qkv.weight, qkv.bias, 4)[:, :, 1:]
    torch.testing.assert_close(found.weights.flatten(2), expected, atol=1e-4, rtol=1e-3)
    assert (found.owner, found.block) == ('teacher', 3)
    assert found.labels[0] == 'teacher, head 1 of 4'


@torch.no_grad()
def test_timm_teacher_shows_every_head(tmp_path: Path):
    vit = small_towers.small_vit()
    weights = small_towers.save(vit, tmp_path / 'vit.safetensors')
    teacher = TimmTeacher(
        small_towers.VIT,
        weights,
        layer=0,
        input_size=32,
        model_kwargs=small_towers.VIT_KWARGS,
    )
    teacher.init_weights()
    # the teacher keeps a cache of outputs elsewhere; here the teacher itself is asked
    cached = CachedTeacher(teacher, cache_dir=str(tmp_path))
    raw, images = small_towers.images()
    found = cached.class_attention(images, small_towers.MEAN, small_towers.STD)
    config = teacher.network.pretrained_cfg
    own = small_towers.normalised(raw, config['mean'], config['std'])
    seen = []
    block = vit.blocks[0]
    block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vit(own)
    expected = literal_rows(seen[0], block.attn.qkv.weight, block.attn.qkv.bias, 2)
    torch.testing.assert_close(
        found.weights.flatten(2), expected[:, :, 3:], atol=1e-4, rtol=1e-3
    )
    assert (found.block, found.mean_of) == (1, None)
    assert teacher.network.blocks[0].attn.fused_attn == block.attn.fused_attn


@torch.no_grad()
def test_open_clip_teacher_shows_the_mean_over_heads(tmp_path: Path):
    visual = small_towers.small_clip().visual
    weights = small_towers.save(visual, tmp_path / 'clip.safetensors')
    teacher = OpenCLIPTeacher(small_towers.clip_config(), weights, layer=1)
    teacher.init_weights()
    raw, images = small_towers.images()
    found = teacher.class_attention(images, small_towers.MEAN, small_towers.STD)
    own = small_towers.normalised(
        raw, tuple(teacher._mean.flatten()), tuple(teacher._std.flatten())
    )
    block = visual.transformer.resblocks[1]
    x = block.ln_1(small_towers.clip_states(visual, own)[0])
    attn = block.attn
    expected = literal_rows(x, attn.in_proj_weight, attn.in_proj_bias, 2).mean(1)
    torch.testing.assert_close(
        found.weights.flatten(1), expected[:, 1:], atol=1e-4, rtol=1e-3
    )
    assert found.labels == ['teacher, mean of 2 heads']
    assert found.block == 2


def test_other_teachers_are_refused():
    teacher = TinyTeacher(random_weights=True)
    teacher.init_weights()
    _, images = small_towers.images()
    with pytest.raises(ValueError, match='cannot be read from TinyTeacher'):
        teacher.class_attention(images, small_towers.MEAN, small_towers.STD)


def test_join_batches_keeps_the_order():
    first, second = (
        ClassAttention(torch.rand(images, 3, 4, 4), 'student', 12) for images in (2, 1)
    )
    joined = join_batches([first, second])
    assert torch.equal(joined.weights[2], second.weights[0])
    assert torch.equal(joined.weights[1], first.weights[1])
