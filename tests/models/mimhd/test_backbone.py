"""RelationViT against the host's network, by value and by what gets a gradient."""

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.selfsup import MAEViT
from torch import nn

from medic_mm.models.mimhd.backbone import RelationViT

ARCH = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)
SETTINGS = dict(arch=ARCH, img_size=32, patch_size=8, layer_scale_init_value=0.1)


def disturb(model: nn.Module) -> nn.Module:
    """Move LayerScale, norms and biases away from their simple starting values."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def build(**kwargs) -> RelationViT:
    torch.manual_seed(0)
    model = RelationViT(**{**SETTINGS, **kwargs})
    model.init_weights()
    disturb(model)
    model.eval()  # the host's backbones return None here
    return model


def images(size=32, batch=3):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'featmap', 'avg_featmap'])
def test_forward_is_the_hosts(out_type):
    settings = dict(SETTINGS, out_type=out_type, final_norm=out_type != 'avg_featmap')
    ours = build(**settings)
    host = VisionTransformer(**settings)
    host.eval()
    assert list(ours.state_dict()) == list(host.state_dict())
    host.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours(images())[-1], host(images())[-1])


VARIANTS = {
    'plain': dict(layer_scale_init_value=0.0),
    'layer scale': {},
    'pre-norm': dict(pre_norm=True),
    'no final norm': dict(final_norm=False),
    'adaptive block': dict(block_heads=4),
    'no qkv bias': dict(qkv_bias=False),
    'swiglu': dict(layer_cfgs=dict(ffn_type='swiglu_fused')),
}


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('block', [1, 3, 4])
def test_relations_are_those_of_the_plain_forward(variant, block):
    model = build(**VARIANTS[variant])
    seen = []
    hook = model.layers[block - 1].attn.qkv.register_forward_hook(
        lambda _, inputs, output: seen.append(output)
    )
    expected = model(images())[-1]
    hook.remove()
    tokens, qkv = model.forward_relations(images(), block)
    assert torch.equal(tokens, expected)

    heads = model.num_heads(block)
    assert heads == (4 if variant == 'adaptive block' and block == 4 else 3)
    width = 48 // heads
    for part, values in enumerate((qkv.query, qkv.key, qkv.value)):
        assert values.shape == (3, heads, 17, width)
        for head in range(heads):
            first = part * 48 + head * width
            assert torch.equal(values[:, head], seen[0][:, :, first : first + width])


def test_relations_hold_at_another_image_size():
    model = build()
    tokens, qkv = model.forward_relations(images(48), 4)
    assert torch.equal(tokens, model(images(48))[-1])
    assert qkv.query.shape == (3, 3, 37, 16)


@pytest.mark.parametrize('constant', [True, False])
def test_drop_path_and_dropout_act_as_in_the_plain_forward(constant):
    model = build(drop_path_rate=0.5, drop_rate=0.2, constant_drop_path=constant)
    model.train()
    torch.manual_seed(5)
    expected = model(images())[-1]
    for block in (2, 4):
        torch.manual_seed(5)
        assert torch.equal(model.forward_relations(images(), block)[0], expected)
    torch.manual_seed(6)
    assert not torch.equal(model.forward_relations(images(), 2)[0], expected)


def test_gradients_equal_the_plain_forwards():
    model = build()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(images())[-1].square().sum(), parameters)
    tokens, _ = model.forward_relations(images(), 3)
    found = torch.autograd.grad(tokens.square().sum(), parameters)
    for name, one, two in zip(names, found, expected, strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_projection_is_computed_once():
    model, calls = build(), []
    model.layers[2].attn.qkv.register_forward_hook(lambda *_: calls.append(1))
    model.forward_relations(images(), 3)
    assert calls == [1]


def test_without_the_tail_the_rest_is_neither_run_nor_trained():
    model, calls = build(), []
    for module in (
        model.layers[2].attn.proj,
        model.layers[2].ln2,
        model.layers[2].ffn,
        model.layers[3],
        model.ln1,
    ):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    tokens, qkv = model.forward_relations(images(), 3, tail=False)
    assert tokens is None
    assert calls == []
    whole = model.forward_relations(images(), 3)[1]
    assert torch.equal(qkv.query, whole.query)

    sum(part.square().sum() for part in (qkv.query, qkv.key, qkv.value)).backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    rest = [f'layers.2.{part}' for part in ('attn.proj', 'attn.gamma1', 'ln2', 'ffn')]
    later = ('layers.3.', 'ln1.', 'pos_embed', *rest)
    expected = {n for n, _ in model.named_parameters() if n.startswith(later)}
    assert idle == expected


def test_drop_path_rates():
    def rates(model):
        return [layer.attn.out_drop.drop_prob for layer in model.layers]

    ramp = build(drop_path_rate=0.3)
    assert rates(ramp) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    constant = build(drop_path_rate=0.3, constant_drop_path=True)
    assert rates(constant) == [0.3, 0.3, 0.3, 0.0]
    assert [layer.ffn.dropout_layer.drop_prob for layer in constant.layers] == rates(
        constant
    )


def test_settings_of_single_blocks_are_kept_and_not_written_to():
    mine = [dict(ffn_type='origin', num_heads=heads) for heads in (2, 3, 4, 6)]
    model = build(layer_cfgs=mine, block_heads=1)
    assert [model.num_heads(block) for block in (1, 2, 3, 4)] == [2, 3, 4, 1]
    assert mine[-1] == dict(ffn_type='origin', num_heads=6)


def test_starts_as_mae_does():
    torch.manual_seed(0)
    model = RelationViT(**SETTINGS)
    model.init_weights()
    mae = MAEViT(arch=ARCH, img_size=32, patch_size=8)
    mae.init_weights()
    assert torch.equal(model.pos_embed, mae.pos_embed)
    assert not model.pos_embed.requires_grad
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan = sum(module.weight.shape)
            bound = (6 / fan) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert (module.bias == 0).all(), name
    weight = model.patch_embed.projection.weight
    bound = (6 / (48 + 3 * 8 * 8)) ** 0.5
    assert 0.9 * bound < weight.abs().max() <= bound
    assert 0.01 < model.cls_token.std() < 0.03


def test_position_embedding_is_row_major_on_an_oblong_grid():
    model = RelationViT(**dict(SETTINGS, img_size=(16, 32)))  # 2 rows of 4 patches
    model.init_weights()
    grid = model.pos_embed[0, 1:].view(2, 4, 48)
    by_row, by_column = grid[..., :24], grid[..., 24:]
    assert (by_row == by_row[:, :1]).all(), 'equal along a row'
    assert (by_column == by_column[:1]).all(), 'equal along a column'
    assert not torch.equal(by_row[0], by_row[1])
    assert len({tuple(row) for row in grid.flatten(0, 1).tolist()}) == 8


def test_pretrained_weights_are_not_drawn_over(tmp_path):
    source = build()
    torch.save(
        {'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}},
        tmp_path / 'student.pth',
    )
    init = dict(
        type='Pretrained',
        checkpoint=str(tmp_path / 'student.pth'),
        prefix='backbone.',
    )
    for init_cfg in (init, [init]):
        model = MODELS.build(
            dict(SETTINGS, type='medic_mm.RelationViT', init_cfg=init_cfg)
        )
        model.init_weights()
        for name, value in model.state_dict().items():
            assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize(('arch', 'heads'), [('deit-tiny', 3), ('deit-small', 6)])
def test_heads_of_the_named_students(arch, heads):
    with torch.device('meta'):
        model = RelationViT(arch=arch)
        adaptive = RelationViT(arch=arch, block_heads=16)
    assert [model.num_heads(block) for block in range(1, 13)] == [heads] * 12
    assert [adaptive.num_heads(block) for block in (11, 12)] == [heads, 16]


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(block_heads=5), '5 heads in block 4 do not divide the width 48'),
        (dict(arch=dict(ARCH, num_heads=7)), '7 heads in block 1 do not divide'),
        (dict(arch='vit-b'), "arch='vit-b' is unknown"),
        (dict(img_size=36), 'not a multiple of patch_size=8'),
        (dict(with_cls_token=False), 'needs its class token'),
        (dict(layer_cfgs=[{}] * 3), 'layer_cfgs has 3 entries but .* 4 blocks'),
    ],
)
def test_refuses_at_construction(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)


@pytest.mark.parametrize('block', [0, 5, -1])
def test_refuses_a_block_that_does_not_exist(block):
    with pytest.raises(ValueError, match='blocks 1 to 4'):
        build().forward_relations(images(), block)
