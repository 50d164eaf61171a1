"""Parts that do not fit are refused when an algorithm is built, in every algorithm."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from mmpretrain.structures import DataSample
from tiny import MEAN, STD, TinyTeacher, batch, build_medic, medic_config
from tiny_mimhd import (
    build_mimhd,
    image_batch,
    initialised,
    inputs_of,
    mimhd_config,
    tinymim_config,
)
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.masking import block_mask
from medic_mm.models.medic.backbone import decode, encode
from medic_mm.models.medic.evolved_masking import given_masks
from medic_mm.models.teachers import CachedTeacher, TeacherOutput
from medic_mm.registry import MODELS

CONFIGS = dict(medic=medic_config, mimhd=mimhd_config, tinymim=tinymim_config)
TOKENS = dict(token=1.0, cls=0.3)


def changed(config: dict, path: str, value) -> dict:
    config = copy.deepcopy(config)
    *keys, last = path.split('.')
    target = config
    for key in keys:
        target = target[key]
    target[last] = value
    return config


# a batch


@pytest.mark.parametrize('method', ['loss', 'predict_pixels'])
@pytest.mark.parametrize('build', [build_medic, build_mimhd])
@pytest.mark.parametrize(
    ('images', 'words'),
    [
        ([torch.zeros(3, 32, 32)] * 2, 'default_collate'),
        (torch.zeros(3, 32, 32), 'default_collate'),
        (torch.zeros(2, 3, 48, 48), 'the images are 48x48 but .* 32x32'),
        (torch.zeros(2, 3, 32, 40), 'the images are 32x40 but .* 32x32'),
    ],
)
def test_images_that_are_not_one_batch_are_refused(build, method, images, words):
    with pytest.raises(UserError, match=words):
        getattr(build(), method)(images, batch(2)['data_samples'])


# heads, widths, patches


@pytest.mark.parametrize(
    ('name', 'path', 'value', 'words'),
    [
        ('medic', 'backbone.arch.num_heads', 5, '5 heads .* the width 48'),
        ('medic', 'neck.decoder_num_heads', 5, 'neck.* 5 heads .* the width 32'),
        ('medic', 'neck.embed_dim', 40, r'neck\.embed_dim=40 .* 48'),
        ('medic', 'neck.patch_size', 4, r'neck\.patch_size=8'),
        ('medic', 'neck.num_patches', 9, r'neck\.num_patches=9 .* 16'),
        ('medic', 'head.pixel_loss.patch_size', 4, r'pixel_loss\.patch_size=4 .* 8'),
        ('medic', 'backbone.patch_size', 16, r'grid of \(4, 4\) .* \(2, 2\)'),
        ('mimhd', 'backbone.arch.num_heads', 5, '5 heads .* the width 48'),
        ('tinymim', 'backbone.block_heads', 5, '5 heads .* the width 48'),
        ('mimhd', 'target_generator.arch.num_heads', 5, '5 heads .* the width 64'),
        ('mimhd', 'target_generator.decoder.num_heads', 5, '5 heads .* the width 32'),
        ('mimhd', 'student_block', 1.0, 'student_block=1.0 .* whole number'),
        ('mimhd', 'student_block', True, 'student_block=True'),
        ('mimhd', 'mask_ratio', math.nan, 'mask_ratio=nan'),
        ('mimhd', 'mask_ratio', 1.5, 'mask_ratio=1.5 .* below 1'),
        ('medic', 'head.weights', dict(cls=[0, 3]), r'weights\.cls=\[0, 3\]'),
        ('medic', 'head.weights', dict(cls=math.nan), r'weights\.cls=nan'),
        ('mimhd', 'head.weights', dict(qk='1', vv=1), r"weights\.qk='1'"),
        ('mimhd', 'head.weights', dict(qk=math.inf, vv=1), r'weights\.qk=inf'),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, path, value, words):
    config = changed(CONFIGS[name](), path, value)
    if path == 'backbone.patch_size':
        config['head']['weights'] = TOKENS
    with pytest.raises(UserError, match=words) as error:
        MODELS.build(config)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('cached', [False, True])
@pytest.mark.parametrize('size', [64, 16])
def test_the_advice_on_grids_works(size, cached):
    config = medic_config()
    teacher = dict(type='medic_mm.TinyTeacher', input_size=size)
    if cached:
        teacher = dict(type='medic_mm.CachedTeacher', teacher=teacher)
    config['target_generator'] = teacher
    with pytest.raises(UserError, match='grid of') as error:
        MODELS.build(config)
    advice = re.findall(r'(target_generator\S+?)=(\(\d, \d\)|\d+)', str(error.value))
    assert len(advice) == 2
    for path, value in advice:
        MODELS.build(changed(config, path, eval(value)))


def test_a_grid_that_is_resized_wrongly_is_named():
    config = medic_config()
    config['target_generator'] = dict(type='medic_mm.TinyTeacher', output_grid=(3, 3))
    with pytest.raises(UserError, match=r'without output_grid, or .*=\(4, 4\)'):
        MODELS.build(config)


@pytest.mark.parametrize('name', ['mimhd', 'tinymim'])
def test_the_advice_on_grids_works_for_relations(name):
    config = changed(CONFIGS[name](), 'target_generator.input_size', 48)
    with pytest.raises(UserError, match=r'target_generator\.input_size=32$'):
        MODELS.build(config)


def test_teachers_of_another_kind_are_refused():
    relations = mimhd_config()['target_generator']
    config = dict(medic_config(), target_generator=relations)
    with pytest.raises(UserError, match=r'MAETeacher does not .* tokens: use .*OpenCL'):
        MODELS.build(config)
    with pytest.raises(
        UserError, match="gives queries, keys and values: use 'medic_mm"
    ):
        MODELS.build(dict(type='medic_mm.CachedTeacher', teacher=relations))
    with pytest.raises(UserError, match='Linear of CachedTeacher is not a frozen'):
        CachedTeacher(torch.nn.Linear(1, 1))
    config = dict(medic_config(), target_generator=dict(type='mmpretrain.HOGGenerator'))
    with pytest.raises(UserError, match='HOGGenerator does not hand out tokens'):
        MODELS.build(config)


@pytest.mark.parametrize('kind', ['medic_mm.RelationViT', 'mmpretrain.MAEViT'])
def test_backbones_that_take_no_mask_are_refused(kind):
    config = medic_config()
    config['backbone']['type'] = kind
    del config['backbone']['encoding'], config['backbone']['layer_scale_init_value']
    with pytest.raises(UserError, match='does not take a mask: use'):
        MODELS.build(config)


# oblong images


def oblong(weights: dict, size: tuple[int, int] = (32, 72), **teacher) -> dict:
    config = medic_config(weights=weights)
    config['backbone']['img_size'] = size
    config['target_generator'] = dict(type='medic_mm.TinyTeacher', **teacher)
    return config


@pytest.mark.parametrize('weights', [dict(pixel=1.0), dict(TOKENS, pixel=0.1)])
def test_oblong_images_with_a_pixel_term_are_refused(weights):
    config = oblong(weights, output_grid=(4, 9))
    config['neck']['num_patches'] = 36
    with pytest.raises(UserError, match=r'4x9 patches, .* square images only'):
        MODELS.build(config)


def test_oblong_images_with_other_terms_work():
    with pytest.raises(UserError, match=r'output_grid=\(4, 9\) to resize') as error:
        MODELS.build(oblong(TOKENS))
    assert 'input_size' not in str(error.value), 'no square input gives this grid'
    model = initialised(oblong(TOKENS, output_grid=(4, 9)))
    masks = block_mask(2, (4, 9), 14, torch.Generator().manual_seed(0), min_area=4)
    samples = [DataSample().set_mask(mask.view(4, 9).numpy()) for mask in masks]
    images = torch.randint(256, (2, 3, 32, 72), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
    losses = model(**data, mode='loss')
    statistics = model.data_preprocessor.mean, model.data_preprocessor.std
    teacher = model.target_generator(data['inputs'], *statistics)
    assert teacher.patch_tokens.shape == (2, 36, 24)
    tokens = model.backbone(data['inputs'], masks)[0]
    split = given_masks(data['data_samples'], 'cpu')
    expected = model.head.loss(tokens, split, teacher)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value)


def test_oblong_images_with_the_students_masks_work():
    config = oblong(TOKENS, output_grid=(4, 9))
    schedule = dict(clusters=(8, 3))
    config['masking'] = dict(
        type='medic_mm.EvolvedMasking', schedule=schedule, progress=(0, 4)
    )
    with pytest.raises(UserError, match=r"or use masking\.source='student_ema'"):
        MODELS.build(config)
    del config['target_generator']['output_grid']
    with pytest.raises(UserError, match=r"source='student_ema' and target_gen"):
        MODELS.build(config)
    config['target_generator']['output_grid'] = (4, 9)
    config['masking']['source'] = 'student_ema'
    model = initialised(config)
    images = torch.randint(256, (2, 3, 32, 72), dtype=torch.uint8)
    data = model.data_preprocessor(
        dict(inputs=images, data_samples=[DataSample(), DataSample()]), True
    )
    assert model(**data, mode='loss')['loss_token'] > 0


@pytest.mark.parametrize('name', ['mimhd', 'tinymim'])
def test_oblong_images_are_refused_with_relations(name):
    config = changed(CONFIGS[name](), 'backbone.img_size', (32, 72))
    config['head']['num_tokens'] = 37
    with pytest.raises(UserError, match=r'square backbone\.img_size'):
        MODELS.build(config)


# masks from a teacher's attention


class NoAttention(TinyTeacher):
    """Ignores that attention is asked for."""

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        return super().encode(images, attention=False)


class Refusing(TinyTeacher):
    """Cannot give attention."""

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        if attention:
            raise ValueError('no attention here')
        return super().encode(images, attention)


@pytest.mark.parametrize('cached', [False, True])
@pytest.mark.parametrize('kind', [NoAttention, Refusing])
def test_a_teacher_without_attention_makes_no_masks(kind, cached):
    teacher = kind()
    assert not teacher.gives_attention and TinyTeacher().gives_attention
    assert teacher.calls == 0, 'the trial leaves no trace'
    schedule = dict(clusters=(8, 3))
    config = medic_config()
    config['masking'] = dict(type='medic_mm.EvolvedMasking', schedule=schedule)
    config['target_generator'] = CachedTeacher(teacher) if cached else teacher
    with pytest.raises(UserError, match=f'cannot be read from {kind.__name__}: use'):
        MODELS.build(config)
    with pytest.raises(UserError, match=f'attention of {kind.__name__} cannot be read'):
        CachedTeacher(teacher, attention=True)


def test_a_cache_keeps_attention_of_the_own_grid_only():
    with pytest.raises(UserError, match=r'output_grid=\(3, 3\): leave it out'):
        CachedTeacher(TinyTeacher(output_grid=(3, 3)), attention=True)


# pixels of the frozen decoder


@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('statistics', ['teacher', 'half'])
def test_the_pixel_target_is_in_the_decoders_statistics(statistics, norm_pix):
    """By an own formula: raw pixels, ImageNet's statistics, patches."""
    config = mimhd_config()
    config['head']['pixel_loss']['norm_pix'] = norm_pix
    config['target_generator']['norm_pix'] = norm_pix
    if statistics == 'half':
        config['data_preprocessor'].update(mean=[127.5] * 3, std=[50.0, 60.0, 70.0])
    model = initialised(config)
    handed = []
    original = model.head.pixel_loss.loss
    model.head.pixel_loss.loss = lambda *parts: handed.append(parts) or original(*parts)
    data = image_batch(2)
    losses = model(**inputs_of(model, data), mode='loss')
    pixels, images, _ = handed[0]
    rgb = data['inputs'].flip(1).float()
    plain = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(images, plain, atol=1e-4, rtol=1e-4)
    target = plain.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, 4, 4, 8, 8)
    target = target.permute(0, 2, 3, 4, 5, 1).reshape(2, 16, 192)
    if norm_pix:
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        target = (target - mean) / (var + 1e-6).sqrt()
    expected = (pixels - target).square().mean()
    torch.testing.assert_close(losses['raw_pixel'], expected, atol=1e-4, rtol=1e-4)


def test_equal_statistics_leave_the_images_as_they_are():
    model = build_mimhd()
    images = inputs_of(model, image_batch(1))['inputs']
    assert model.pixel_space(images)[0] is images
    config = mimhd_config()
    config['data_preprocessor'].update(mean=[127.5] * 3, std=[60.0] * 3)
    config['target_generator']['input_norm'] = 'student'
    assert initialised(config).pixel_space(images)[0] is images, 'trained with them'


# the decoder of a dense encoding


@pytest.mark.parametrize('encoding', ['dense', 'sparse'])
def test_mask_tokens_are_replaced_where_asked(encoding):
    """As the released decoder does, written out by position."""
    config = dict(medic_config(encoding), replace_mask_tokens=True)
    model = initialised(config).eval()
    data = model.data_preprocessor(batch(3), True)
    split = given_masks(data['data_samples'], 'cpu')
    tokens = encode(model, data['inputs'], split)
    found = decode(model, tokens, split)
    neck, embedded = model.neck, model.neck.decoder_embed(tokens)
    filled = neck.mask_token.repeat(3, 17, 1)
    for image, mask in enumerate(split.mask):
        filled[image, 0] = embedded[image, 0]
        seen = 0
        for place, hidden in enumerate(mask.tolist()):
            if hidden:
                continue
            source = 1 + (place if encoding == 'dense' else seen)
            filled[image, 1 + place] = embedded[image, source]
            seen += 1
    filled = filled + neck.decoder_pos_embed
    for block in neck.decoder_blocks:
        filled = block(filled)
    expected = neck.decoder_pred(neck.decoder_norm(filled))[:, 1:]
    torch.testing.assert_close(found, expected)
    model.replace_mask_tokens = False
    same = torch.allclose(decode(model, tokens, split), expected, atol=1e-5)
    assert same == (encoding == 'sparse')


def test_a_dense_mask_token_from_a_file_is_kept(tmp_path):
    saved = build_medic('dense')
    state = {k: torch.full_like(v, 0.5) for k, v in saved.state_dict().items()}
    torch.save(state, tmp_path / 'whole.pth')
    config = dict(medic_config('dense'))
    config['init_cfg'] = [
        dict(type='Pretrained', checkpoint=str(tmp_path / 'whole.pth'))
    ]
    model = initialised(config)
    assert (model.mask_token == 0.5).all() and (model.backbone.cls_token == 0.5).all()


def test_counts_of_a_ratio_round_down():
    config = mimhd_config(mask_ratio=0.29)
    for part in (config['backbone'], config['target_generator']):
        part['img_size' if 'img_size' in part else 'input_size'] = 112
    config['head']['num_tokens'] = 197
    assert MODELS.build(config).num_hidden == 56
