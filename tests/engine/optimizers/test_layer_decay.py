"""Parameter groups against the formula, for algorithms, classifiers and segmentors."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.utils import import_modules_from_strings
from tiny import build_medic, medic_config

from medic_mm.engine.optimizers import LayerDecayOptimWrapperConstructor

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=ARCH,
    img_size=32,
    patch_size=8,
    layer_scale_init_value=0.1,
)


def groups_of(model, rate=0.65, lr=4e-3, decay=0.05):
    constructor = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=lr, weight_decay=decay)),
        dict(layer_decay_rate=rate),
    )
    return constructor(model).optimizer.param_groups


def literal_depth(name: str) -> int:
    """0 for the stem, l for block l from 1, 4 for all that follows (3 blocks)."""
    name = name.removeprefix('backbone.') if name.startswith('backbone.') else 'head'
    if name.startswith(('cls_token', 'pos_embed', 'patch_embed')):
        return 0
    if name.startswith('layers.'):
        return int(name.split('.')[1]) + 1
    return 4


def check(model, rate):
    by_id = {id(p): g for g in groups_of(model, rate) for p in g['params']}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(by_id) == {id(p) for p in trained.values()}
    for name, parameter in trained.items():
        group = by_id[id(parameter)]
        depth = literal_depth(name) if rate < 1 else 4
        assert group['lr'] == pytest.approx(4e-3 * rate ** (4 - depth)), name
        spared = parameter.ndim <= 1 or name.endswith(
            ('cls_token', 'pos_embed', 'mask_token', 'relative_position_bias_table')
        )
        assert group['weight_decay'] == (0.0 if spared else 0.05), name


@pytest.mark.parametrize('rate', [1.0, 0.65])
@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_algorithm(rate, encoding):
    check(build_medic(encoding), rate)


@pytest.mark.parametrize('rate', [1.0, 0.65])
def test_classifier(rate):
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(VIT, out_type='avg_featmap', final_norm=False),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=48),
        )
    )
    check(model, rate)


@pytest.mark.parametrize('rate', [1.0, 0.75])
def test_segmentor(rate):
    pytest.importorskip('mmseg')
    import_modules_from_strings(['mmseg.models', 'mmpretrain.models'])
    norm = dict(type='BN')
    model = MODELS.build(
        dict(
            type='mmseg.EncoderDecoder',
            backbone=dict(
                VIT, out_type='featmap', out_indices=[0, 1, 2], final_norm=False
            ),
            neck=dict(
                type='mmseg.Feature2Pyramid',
                embed_dim=48,
                rescales=[2, 1, 0.5],
                norm_cfg=norm,
            ),
            decode_head=dict(
                type='mmseg.UPerHead',
                in_channels=[48, 48, 48],
                in_index=[0, 1, 2],
                pool_scales=(1, 2),
                channels=16,
                num_classes=4,
                norm_cfg=norm,
            ),
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        )
    )
    check(model, rate)


def test_beits_bias_table_is_not_decayed():
    config = medic_config(weights=dict(token=1.0))
    config['backbone'] = dict(
        VIT, type='mmpretrain.BEiTPretrainViT', use_shared_rel_pos_bias=True
    )
    model = MODELS.build(config)
    names = [n for n, _ in model.named_parameters()]
    assert any(n.endswith('relative_position_bias_table') for n in names)
    check(model, 0.65)


def test_there_are_few_groups():
    assert len(groups_of(build_medic(), rate=1.0)) == 2
    # stem, 3 blocks and the rest, decayed and not
    assert len(groups_of(build_medic(), rate=0.65)) == 10


def test_frozen_parameters_are_left_out():
    model = build_medic()
    model.backbone.pos_embed.requires_grad = False
    grouped = {id(p) for g in groups_of(model) for p in g['params']}
    assert id(model.backbone.pos_embed) not in grouped
    assert id(model.neck.decoder_pos_embed) not in grouped


def test_a_wrapped_model_gives_the_same_groups():
    class Wrapper(torch.nn.parallel.DataParallel):
        pass

    model = build_medic()
    plain = [len(g['params']) for g in groups_of(model)]
    assert [len(g['params']) for g in groups_of(Wrapper(model))] == plain


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(custom_keys={}), r"unknown keys \['custom_keys'\]"),
        *[
            (dict(layer_decay_rate=v), f'layer_decay_rate={v!r} of Layer.*at most 1')
            for v in (0.0, -0.5, 1.1, float('nan'), float('inf'), True, '0.65', None)
        ],
    ],
)
def test_refuses_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        LayerDecayOptimWrapperConstructor(dict(optimizer=dict(type='SGD')), settings)


def test_refuses_a_backbone_without_depths():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match='but Linear has none'):
        groups_of(model)
