"""MIM-HD refuses parts that do not fit, in one sentence before the first step."""

import pytest
import torch
from mmengine.registry import MODELS
from tiny_mimhd import build_mimhd, initialised, mimhd_config, tinymim_config

MISFITS = [
    (('student_block',), 0, 'student_block=0 is out of range: .* blocks 1 to 3'),
    (('student_block',), 4, 'student_block=4 is out of range'),
    (('target_generator', 'block'), 5, 'block=5'),
    (('target_generator', 'block'), 0, 'block=0'),
    (('target_generator',), None, 'set target_generator'),
    (('target_generator', 'decoder'), None, 'needs the decoder of the teacher'),
    (('target_generator', 'input_size'), 48, r'grid of \(6, 6\)'),
    (('neck',), None, 'needs a decoder: set neck'),
    (('neck', 'embed_dims'), 40, 'neck.embed_dims=40 .* backbone, 48'),
    (('neck', 'teacher_dims'), 40, 'neck.teacher_dims=40 .* teacher, 64'),
    (('neck', 'decoder_dims'), 40, 'neck.decoder_dims=40 .* decoder, 32'),
    (('head', 'student_heads'), 4, 'head.student_heads=4 .* block 3 .*, 3'),
    (('head', 'teacher_heads'), 3, 'head.teacher_heads=3 .* teacher, 4'),
    (('head', 'num_tokens'), 16, 'head.num_tokens=16 .* 17'),
    (('head', 'pixel_loss', 'patch_size'), 4, 'pixel_loss.patch_size=4 .* 8'),
    (('backbone', 'arch', 'num_heads'), 5, '5 heads .* do not divide the width 48'),
    (('head', 'matching', 'type'), 'medic_mm.OneToOneMatching', '3 .* 4'),
    (
        ('head', 'matching'),
        dict(type='medic_mm.RelationHeadMatching', num_heads=5),
        '5 .*48',
    ),
    (('backbone', 'final_norm'), False, 'backbone.final_norm=True'),
    (('backbone', 'type'), 'mmpretrain.VisionTransformer', 'medic_mm.RelationViT'),
    (('mask_ratio',), 0.05, 'mask_ratio=0.05 hides 0 of 16'),
    (('mask_ratio',), 0.0, 'mask_ratio=0.0 .* above 0'),
    (('mask_ratio',), 1.0, 'mask_ratio=1.0 .* below 1'),
]


@pytest.mark.parametrize(('path', 'value', 'words'), MISFITS)
def test_refuses_parts_that_do_not_fit(path, value, words):
    config = mimhd_config()
    target = config
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ValueError, match=words) as caught:
        MODELS.build(config)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('cached', [True, False])
def test_refuses_teachers_of_tokens(cached):
    config = mimhd_config()
    if cached:
        teacher = config['target_generator']
        config['target_generator'] = dict(
            type='medic_mm.CachedTeacher', teacher=teacher
        )
    else:
        config['target_generator'] = dict(
            type='medic_mm.TimmTeacher', model='test_vit', random_weights=True
        )
    with pytest.raises(ValueError, match=r"use 'medic_mm\.MAETeacher'"):
        MODELS.build(config)


def test_an_adaptive_block_must_be_the_distilled_one():
    config = tinymim_config()
    config['student_block'] = 2
    with pytest.raises(ValueError, match=r'student_heads=4 .* block 2 .*, 3'):
        MODELS.build(config)


def test_refuses_a_teacher_of_another_patch_size():
    config = mimhd_config()
    config['target_generator'].update(patch_size=16, input_size=64)
    with pytest.raises(ValueError, match=r'target_generator.patch_size=16 .*, 8'):
        MODELS.build(config)


def test_refuses_statistics_that_are_missing():
    config = mimhd_config()
    del config['data_preprocessor']['mean'], config['data_preprocessor']['std']
    with pytest.raises(ValueError, match='mean and std'):
        MODELS.build(config)


@pytest.mark.parametrize('head', [True, False])
def test_refuses_pixel_spaces_that_disagree(head):
    config = mimhd_config()
    config['head']['pixel_loss']['norm_pix'] = head
    config['target_generator']['norm_pix'] = not head
    words = rf'norm_pix={head} but .* norm_pix={not head}: set the head to {not head}'
    with pytest.raises(ValueError, match=words):
        MODELS.build(config)
    config['target_generator']['norm_pix'] = None  # random weights suit any pixels
    assert initialised(config).head.pixel_loss.norm_pix == head


def test_refuses_images_of_another_size_and_loose_ones():
    model = build_mimhd()
    with pytest.raises(ValueError, match=r'the images are 48x48 but .* 32x32'):
        model.loss(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match='default_collate'):
        model.loss([torch.zeros(3, 32, 32)])
