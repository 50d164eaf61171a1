"""Vision Transformers that cannot run are refused when they are built."""

import pytest
import torch
from mmengine.model import PretrainedInit
from mmpretrain.models.backbones import VisionTransformer

from medic_mm.errors import UserError
from medic_mm.models.vit.arguments import check_vit, loads_a_file
from medic_mm.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
SIZES = dict(img_size=32, patch_size=8)
BACKBONES = ['medic_mm.MaskedViT', 'medic_mm.RelationViT']
PRETRAINED = ['Pretrained', 'mmengine.Pretrained', PretrainedInit]


def build(kind: str, **settings) -> torch.nn.Module:
    return MODELS.build(dict(type=kind, **{**SIZES, 'arch': ARCH, **settings}))


def teacher(arch: dict) -> torch.nn.Module:
    sizes = dict(input_size=32, patch_size=8, block=1)
    return MODELS.build(
        dict(type='medic_mm.MAETeacher', arch=arch, random_weights=True, **sizes)
    )


@pytest.mark.parametrize('kind', [*BACKBONES, 'medic_mm.MAETeacher'])
@pytest.mark.parametrize('key', ARCH)
def test_an_incomplete_architecture_says_what_is_missing(kind, key):
    arch = {name: value for name, value in ARCH.items() if name != key}
    name = kind.rpartition('.')[2]
    with pytest.raises(UserError, match=rf'arch of {name} lacks {key}: it needs emb'):
        teacher(arch) if name == 'MAETeacher' else build(kind, arch=arch)


@pytest.mark.parametrize('kind', [*BACKBONES, 'medic_mm.MAETeacher'])
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(num_heads=5), '5 heads .*do not divide the width 48'),
        (dict(num_heads=0), r'arch\.num_heads=0 .* at least 1'),
        (dict(num_layers=2.0), r'arch\.num_layers=2\.0 .* whole number'),
        (dict(embed_dims=True), r'arch\.embed_dims=True'),
        (dict(embed_dim=48), 'unknown keys embed_dim: it needs embed_dims'),
    ],
)
def test_architectures_that_cannot_run_are_refused(kind, change, words):
    arch = {**ARCH, **change}
    with pytest.raises(UserError, match=words):
        teacher(arch) if kind.endswith('Teacher') else build(kind, arch=arch)


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(arch='vit-b'), "arch='vit-b' is unknown to mmpretrain"),
        (dict(arch='Bace'), 'near names: base'),
        (dict(arch=3), 'arch=3 .* must be a name or a dict'),
        (dict(img_size=30), '30 is not a multiple of patch_size=8: .* 24 and 32'),
        (dict(img_size=(32, 36)), r'\(32, 36\) is not a multiple .* 32 and 40'),
        (dict(img_size=4), 'nearest fitting sizes are 8 and 16'),
        (dict(img_size=(32, 32, 32)), 'one number, or height and width'),
        (dict(patch_size=0), 'patch_size=0 .* at least 1'),
        (dict(patch_size=8.0), r'patch_size=8\.0'),
        (dict(drop_path_rate=1.0), r'drop_path_rate=1\.0 .* below 1'),
        (dict(drop_rate=float('nan')), 'drop_rate=nan'),
        (dict(layer_scale_init_value=float('inf')), 'layer_scale_init_value=inf'),
        (dict(in_channels='3'), "in_channels='3'"),
        (dict(out_indices=[4]), 'out_indices=4'),
        (dict(with_cls_token=False), 'needs its class token'),
        (dict(layer_cfgs=[{}] * 2), 'layer_cfgs has 2 entries but .* 3 blocks'),
        (
            dict(layer_cfgs=[{}, dict(num_heads=5), {}]),
            '5 heads in block 2 do not divide the width 48',
        ),
    ],
)
def test_arguments_that_cannot_run_are_refused(kind, settings, words):
    with pytest.raises(UserError, match=words):
        build(kind, **settings)


@pytest.mark.parametrize('arch', VisionTransformer.arch_zoo)
def test_every_architecture_of_mmpretrain_passes(arch):
    patch = 14 if 'g' in arch or 'h' in arch else 16
    settings = check_vit(VisionTransformer, dict(arch=arch, patch_size=patch))
    assert settings['embed_dims'] == VisionTransformer.arch_zoo[arch]['embed_dims']


# init_cfg: what a file gave is never drawn over


def init_cfg(kind, path: str, form: str):
    step = dict(type=kind, checkpoint=path)
    other = dict(type='Constant', layer='Linear', val=3.0)
    return dict(dict=step, list=[step], tuple=(step,), after=[other, step])[form]


@pytest.mark.parametrize('form', ['dict', 'list', 'after'])
@pytest.mark.parametrize('pretrained', PRETRAINED)
@pytest.mark.parametrize('kind', BACKBONES)
def test_a_file_is_not_drawn_over(kind, pretrained, form, tmp_path):
    saved = build(kind)
    generator = torch.Generator().manual_seed(5)
    state = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in saved.state_dict().items()
    }
    torch.save(state, tmp_path / 'w.pth')
    settings = init_cfg(pretrained, str(tmp_path / 'w.pth'), form)
    assert loads_a_file(settings)
    if pretrained == 'mmengine.Pretrained':
        return  # mmengine itself does not find it by that name
    model = build(kind, init_cfg=settings)
    model.init_weights()
    differing = [k for k, v in model.state_dict().items() if not v.equal(state[k])]
    assert differing == []


@pytest.mark.parametrize('kind', BACKBONES)
def test_other_settings_of_init_cfg_hold(kind):
    step = dict(type='Constant', layer='Linear', val=0.25)
    assert (
        not loads_a_file(step) and not loads_a_file([step]) and not loads_a_file(None)
    )
    model = build(kind, init_cfg=step)
    model.init_weights()
    assert (model.layers[1].attn.qkv.weight == 0.25).all()
    assert model.patch_embed.projection.weight.std() > 0
    plain = build(kind)
    plain.init_weights()
    assert plain.layers[1].attn.qkv.weight.std() > 0
