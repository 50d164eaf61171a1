"""Names of the official MAE and of mmpretrain, and the way between them."""

from __future__ import annotations

import plain_mae
import pytest
import torch
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.selfsup import MAEViT
from torch import nn

from medic_mm.checkpoints import convert_keys, detect_layout


def host_mae(arch: dict | str = plain_mae.ARCH, **decoder) -> nn.ModuleDict:
    side = plain_mae.PATCH * plain_mae.SIDE
    sizes = dict(
        num_patches=plain_mae.SIDE**2,
        patch_size=plain_mae.PATCH,
        embed_dim=plain_mae.DIMS,
        decoder_embed_dim=plain_mae.DECODER_DIMS,
        decoder_depth=plain_mae.DECODER_DEPTH,
        decoder_num_heads=plain_mae.DECODER_HEADS,
    )
    image = dict(img_size=side, patch_size=plain_mae.PATCH)
    if decoder:
        sizes, image = decoder, {}
    parts = dict(backbone=MAEViT(arch, **image), neck=MAEPretrainDecoder(**sizes))
    return nn.ModuleDict(parts)


def test_an_official_checkpoint_loads_strictly_and_computes_the_same():
    weights = plain_mae.random_weights()
    model = host_mae().eval()
    model.load_state_dict(convert_keys(weights, 'mae', 'mmpretrain'), strict=True)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    with torch.no_grad():
        tokens = model['backbone'](images, mask=None)[-1]
        expected, _ = plain_mae.encode(weights, images)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
        # the host's decoder hides what is beyond the first 6 of the order
        embedded = tokens @ weights['decoder_embed.weight'].T
        embedded = embedded + weights['decoder_embed.bias']
        for row, kept in enumerate(order[:, :6]):
            hidden = [place for place in range(16) if place not in kept.tolist()]
            embedded[row, 1 + torch.tensor(hidden)] = weights['mask_token'][0, 0]
        kept = tokens[:, 1:].gather(
            1, order[:, :6, None].expand(-1, -1, tokens.shape[2])
        )
        pixels = model['neck'](torch.cat([tokens[:, :1], kept], 1), order.argsort(1))
        expected = plain_mae.decode(weights, embedded)
        torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_the_round_trip_gives_back_the_same_bits():
    weights = plain_mae.random_weights()
    there = convert_keys(weights, 'mae', 'mmpretrain')
    back = convert_keys(there, 'mmpretrain', 'mae')
    assert not set(there) & set(weights)
    assert list(back) == list(weights)
    assert all(back[name].equal(value) for name, value in weights.items())


def test_all_398_names_of_a_large_mae_are_those_of_the_host():
    sizes = dict(
        dims=1024, depth=24, decoder_dims=512, decoder_depth=8, patch=16, side=14
    )
    with torch.device('meta'):
        host = host_mae('large', embed_dim=1024).state_dict()
        official = {k: torch.empty(v) for k, v in plain_mae.shapes(**sizes).items()}
    assert len(official) == 398
    assert len(plain_mae.encoder_only(official)) == 294
    converted = convert_keys(official, 'mae', 'mmpretrain')
    assert {k: v.shape for k, v in converted.items()} == {
        k: v.shape for k, v in host.items()
    }


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('norm.weight', 'backbone.ln1.weight'),
        ('decoder_norm.weight', 'neck.ln1.weight'),
        ('blocks.10.norm1.bias', 'backbone.layers.10.ln1.bias'),
        (
            'decoder_blocks.1.mlp.fc2.weight',
            'neck.decoder_blocks.1.ffn.layers.1.weight',
        ),
    ],
)
def test_names_that_contain_each_other_are_told_apart(name, expected):
    value = torch.ones(1)
    assert convert_keys({name: value}, 'mae', 'mmpretrain') == {expected: value}


def test_layouts_are_told_apart():
    weights = plain_mae.random_weights()
    assert detect_layout(weights) == 'mae'
    assert detect_layout(plain_mae.encoder_only(weights)) == 'mae'
    assert detect_layout(convert_keys(weights, 'mae', 'mmpretrain')) == 'mmpretrain'
    with pytest.raises(ValueError, match=r'visual\.proj, b\) is of a known layout'):
        detect_layout(['visual.proj', 'b'])


def test_foreign_names_and_layouts_are_refused():
    weights = {**plain_mae.random_weights(), 'head.weight': torch.ones(1)}
    with pytest.raises(ValueError, match=r"1 of \d+ names .* 'mae': head\.weight"):
        convert_keys(weights, 'mae', 'mmpretrain')
    with pytest.raises(ValueError, match="target='beit' is not a known layout"):
        convert_keys({}, 'mae', 'beit')
