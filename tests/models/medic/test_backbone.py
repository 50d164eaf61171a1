"""MaskedViT against the host's network and literal encoders."""

import math

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models.backbones import BEiTViT, VisionTransformer

from medic_mm.masking import PatchSplit, block_mask, random_mask
from medic_mm.models.medic.backbone import MaskedViT

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
SETTINGS = dict(arch=ARCH, img_size=32, patch_size=8, layer_scale_init_value=0.1)


def build(**kwargs) -> MaskedViT:
    torch.manual_seed(0)
    model = MaskedViT(**{**SETTINGS, **kwargs})
    model.init_weights()
    # LayerScale and norms away from their simple starting values
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.eval()  # the host's backbones return None here
    return model


def images(size=32, batch=3):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def mask_of(length=16, hidden=6, batch=3):
    side = math.isqrt(length)
    return random_mask(
        batch, (side, side), hidden, torch.Generator().manual_seed(hidden)
    )


@pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'featmap', 'avg_featmap'])
def test_without_a_mask_it_is_the_hosts_network(out_type):
    ours = build(out_type=out_type, final_norm=out_type != 'avg_featmap')
    host = VisionTransformer(
        **SETTINGS, out_type=out_type, final_norm=out_type != 'avg_featmap'
    )
    host.eval()
    assert list(ours.state_dict()) == list(host.state_dict())
    host.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours(images())[-1], host(images())[-1])


def blocks_and_norm(model, tokens):
    for layer in model.layers:
        tokens = layer(tokens)
    return model.ln1(tokens)


def test_sparse_is_the_plain_network_on_the_kept_tokens():
    model, mask = build(), mask_of()
    encoded = model(images(), mask)[0]
    for i, row in enumerate(mask.tolist()):
        patches = model.patch_embed(images()[i : i + 1])[0][0]
        kept = [patches[j] + model.pos_embed[0, 1 + j] for j in range(16) if not row[j]]
        cls_token = model.cls_token[0, 0] + model.pos_embed[0, 0]
        expected = blocks_and_norm(model, torch.stack([cls_token, *kept])[None])
        torch.testing.assert_close(encoded[i], expected[0], rtol=1e-5, atol=1e-5)


def test_sparse_with_nothing_hidden_equals_the_plain_network():
    model = build()
    everything = torch.zeros(3, 16, dtype=torch.bool)
    torch.testing.assert_close(
        model(images(), everything)[0], model(images())[-1], rtol=1e-5, atol=1e-5
    )


def test_dense_puts_the_mask_token_at_hidden_places():
    model, mask = build(encoding='dense'), mask_of()
    token = torch.randn(1, 1, 48, generator=torch.Generator().manual_seed(2))
    encoded = model(images(), mask, token)[0]
    for i, row in enumerate(mask.tolist()):
        patches = model.patch_embed(images()[i : i + 1])[0][0]
        sequence = [model.cls_token[0, 0] + model.pos_embed[0, 0]]
        for j in range(16):
            content = token[0, 0] if row[j] else patches[j]
            sequence.append(content + model.pos_embed[0, 1 + j])
        expected = blocks_and_norm(model, torch.stack(sequence)[None])
        torch.testing.assert_close(encoded[i], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_no_gradient_reaches_hidden_pixels(encoding):
    model, mask = build(encoding=encoding), mask_of()
    x = images().requires_grad_()
    token = torch.zeros(1, 1, 48, requires_grad=True)
    model(x, mask, token)[0].square().sum().backward()
    by_patch = x.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum((1, 4, 5)).flatten(1)
    assert (by_patch[mask] == 0).all()
    assert (by_patch[~mask] > 0).all()
    assert (token.grad is not None) == (encoding == 'dense')


def test_a_split_and_its_mask_are_the_same():
    model, mask = build(), mask_of()
    split = PatchSplit.from_mask(mask)
    assert torch.equal(model(images(), mask)[0], model(images(), split)[0])


def test_other_image_sizes_interpolate_positions():
    model = build()
    x, visible = images(size=48), torch.zeros(3, 36, dtype=torch.bool)
    torch.testing.assert_close(model(x, visible)[0], model(x)[-1], rtol=1e-5, atol=1e-5)


def test_initial_weights_are_beits():
    torch.manual_seed(0)
    wide = dict(embed_dims=256, num_layers=4, num_heads=4, feedforward_channels=1024)
    model = MaskedViT(arch=wide, img_size=32, patch_size=8)
    model.init_weights()
    for depth, layer in enumerate(model.layers, start=1):
        shrunk = 0.02 / math.sqrt(2 * depth)
        assert layer.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert layer.attn.proj.weight.std().item() == pytest.approx(shrunk, rel=0.03)
        assert layer.ffn.layers[0][0].weight.std().item() == pytest.approx(
            0.02, rel=0.03
        )
        assert layer.ffn.layers[1].weight.std().item() == pytest.approx(
            shrunk, rel=0.03
        )
        assert not layer.attn.qkv.bias.any()
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(encoding='spars'), "encoding='spars'"),
        (dict(arch='vit-b'), "arch='vit-b' is unknown"),
        (dict(img_size=30), 'img_size=30 is not a multiple of patch_size=8'),
        (dict(with_cls_token=False), 'with_cls_token=True'),
    ],
)
def test_refuses(kwargs, words):
    with pytest.raises(ValueError, match=words):
        build(**kwargs)


def test_refuses_a_mask_of_another_grid():
    with pytest.raises(ValueError, match=r'\(3, 25\).*\(3, 16\)'):
        build()(images(), mask_of(25))


def test_dense_refuses_a_missing_mask_token():
    with pytest.raises(ValueError, match='needs a mask_token'):
        build(encoding='dense')(images(), mask_of())


def test_the_hosts_dense_beit_pretrains_and_its_weights_go_to_beitvit():
    beit = dict(SETTINGS, out_type='raw', final_norm=True)
    pretrain = MODELS.build(dict(beit, type='mmpretrain.BEiTPretrainViT'))
    pretrain.init_weights()
    mask = block_mask(3, (4, 4), 6, torch.Generator().manual_seed(0), min_area=4)
    assert pretrain(images(), mask)[-1].shape == (3, 17, 48)
    finetune = BEiTViT(**beit, use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    report = finetune.load_state_dict(pretrain.state_dict(), strict=False)
    assert report.missing_keys == []
    assert report.unexpected_keys == ['mask_token']
    pretrain.eval()
    finetune.eval()
    assert torch.equal(pretrain(images(), None)[-1], finetune(images())[-1])
