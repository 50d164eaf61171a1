"""Patch tokens and patch attention of students and teachers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tiny_mimhd import build_mimhd, image_batch, inputs_of
from torch import Tensor, nn

from medic_mm.models.teachers import CachedTeacher, TimmTeacher
from medic_mm.pictures.features import (
    PatchTokens,
    draw_features,
    explained_share,
    join_tokens,
    pca_colours,
    student_tokens,
    teacher_tokens,
)
from medic_mm.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return build_mimhd().eval()


@pytest.fixture(scope='module')
def images(model: nn.Module) -> Tensor:
    return inputs_of(model, image_batch(3))['inputs']


def statistics(model: nn.Module) -> tuple[Tensor, Tensor]:
    return model.data_preprocessor.mean, model.data_preprocessor.std


@torch.no_grad()
def test_student_tokens_are_those_of_the_block(
    model: nn.Module, images: Tensor
) -> None:
    backbone = model.backbone
    patches, _ = backbone.patch_embed(images)
    tokens = torch.cat([backbone.cls_token.expand(3, -1, -1), patches], 1)
    tokens = tokens + backbone.pos_embed
    for number, layer in enumerate(backbone.layers, start=1):
        tokens = layer(tokens)
        expected = backbone.ln1(tokens) if number == 3 else tokens
        found = student_tokens(backbone, images, number)
        torch.testing.assert_close(found.values, expected[:, 1:], atol=1e-5, rtol=1e-4)
        assert (found.grid, found.what) == ((4, 4), f'block {number}')
    last = student_tokens(backbone, images)
    assert torch.equal(last.values, found.values)


@torch.no_grad()
@pytest.mark.parametrize(
    'kind',
    [
        dict(type='mmpretrain.MAEViT', mask_ratio=0.75),
        dict(type='mmpretrain.VisionTransformer', out_type='cls_token'),
        dict(type='mmpretrain.BEiTViT', out_type='raw'),
    ],
)
def test_students_of_the_host_see_whole_images(kind: dict, images: Tensor) -> None:
    settings = dict(kind, arch=ARCH, img_size=32, patch_size=8)
    backbone = MODELS.build(settings)
    backbone.init_weights()
    backbone.eval()  # the host's returns nothing
    found = student_tokens(backbone, images)
    assert found.values.shape == (3, 16, 48)
    raw = MODELS.build(dict(settings, out_type='raw'))
    raw.load_state_dict(backbone.state_dict())
    raw.eval()
    whole = raw(images, None) if 'MAE' in kind['type'] else raw(images)
    torch.testing.assert_close(found.values, whole[0][:, 1:], atol=1e-5, rtol=1e-4)


def test_unknown_students_and_blocks_are_refused(
    model: nn.Module, images: Tensor
) -> None:
    other = MODELS.build(dict(type='mmpretrain.ResNet', depth=18))
    with pytest.raises(ValueError, match='cannot be read from ResNet: it takes'):
        student_tokens(other, images)
    with pytest.raises(ValueError, match='block=4 is out of range: RelationViT has'):
        student_tokens(model.backbone, images, 4)


def test_a_teacher_of_relations_shows_its_values(
    model: nn.Module, images: Tensor
) -> None:
    teacher = model.target_generator
    qkv = teacher(images, *statistics(model))
    found = teacher_tokens(teacher, images, *statistics(model))
    expected = torch.cat([qkv.value[:, head, 1:] for head in range(4)], dim=-1)
    assert torch.equal(found.values, expected)
    assert (found.grid, found.what) == ((4, 4), 'values of block 3')


def test_attention_of_relations_is_softmaxed_over_all_tokens(
    model: nn.Module, images: Tensor
) -> None:
    qkv = model.target_generator(images, *statistics(model))
    found = model.target_generator.patch_attention(images, *statistics(model))
    expected = torch.zeros(3, 17, 17)
    for head in range(4):
        for image in range(3):
            logits = qkv.query[image, head] @ qkv.key[image, head].T / 4  # 16 wide
            expected[image] += logits.softmax(-1) / 4
    torch.testing.assert_close(found, expected[:, 1:, 1:], atol=1e-6, rtol=1e-4)


def test_the_teacher_behind_a_cache_is_asked(model: nn.Module, images: Tensor) -> None:
    teacher = TimmTeacher(
        'vit_tiny_patch16_224',
        input_size=32,
        random_weights=True,
        model_kwargs=dict(patch_size=8, depth=2, embed_dim=48),
    )
    teacher.init_weights()
    out = teacher(images, *statistics(model), attention=True)
    cached = CachedTeacher(teacher)
    for asked in (teacher, cached):
        attention = asked.patch_attention(images, *statistics(model))
        assert torch.equal(attention, out.attention)
        assert asked.native_grid == (4, 4)
        found = teacher_tokens(asked, images, *statistics(model))
        torch.testing.assert_close(found.values, out.patch_tokens)
        assert found.what == 'block 2'


def test_explained_share_equals_numpys() -> None:
    tokens = torch.randn(3, 10, 7, generator=torch.Generator().manual_seed(0))
    points = tokens.view(30, 7).numpy().astype(np.float64)
    values = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    expected = values[:3].sum() / values.sum()
    assert explained_share(tokens) == pytest.approx(expected)
    assert explained_share(torch.ones(2, 4, 5)) == 0


def test_figure_shows_the_colours_of_each_side_below_the_images() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(9, 3, 8, 8, generator=generator)
    sides = {
        name: PatchTokens(
            torch.randn(9, side**2, 6, generator=generator), (side,) * 2, w
        )
        for name, side, w in (('teacher', 4, 'block 12'), ('student', 2, 'block 6'))
    }
    figure = Figure()
    draw_features(figure, pictures, sides)
    # nine images in two bands of five, the last place empty
    shown = np.array([len(axis.images) for axis in figure.axes]).reshape(6, 5)
    assert (shown == [[1] * 5] * 3 + [[1] * 4 + [0]] * 3).all()
    for image in (0, 7):
        band, column = divmod(image, 5)
        cells = [figure.axes[(3 * band + line) * 5 + column] for line in range(3)]
        expected = [pictures[image].permute(1, 2, 0)] + [
            pca_colours(side.values, side.grid)[image] for side in sides.values()
        ]
        for cell, values in zip(cells, expected, strict=True):
            np.testing.assert_allclose(cell.images[0].get_array(), values.numpy())
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    share = explained_share(sides['student'].values)
    assert texts.count(f'block 6\n{share:.0%} of the\nvariance') == 2


def test_batches_are_joined() -> None:
    parts = [PatchTokens(torch.full((2, 4, 3), float(n)), (2, 2), 'x') for n in (1, 2)]
    joined = join_tokens(parts)
    assert joined.values[:, 0, 0].tolist() == [1, 1, 2, 2]
    assert (joined.grid, joined.what) == ((2, 2), 'x')
