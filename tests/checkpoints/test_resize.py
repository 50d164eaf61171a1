"""Weights for other image and patch sizes."""

from __future__ import annotations

import plain_mae
import pytest
import torch
import torch.nn.functional as F
import vits
from mmpretrain.models.utils import resize_pos_embed

from medic_mm.checkpoints import convert_keys, resize_weights

POSITIONS = {
    'mmpretrain': 'backbone.pos_embed',
    'mmseg': 'pos_embed',
    'timm': 'pos_embed',
    'mae': 'pos_embed',
}


@pytest.mark.parametrize('layout', POSITIONS)
def test_positions_are_enlarged_as_the_host_does(layout: str) -> None:
    network = vits.mmpretrain_vit()
    weights = convert_keys(vits.checkpoint(network), 'mmpretrain', layout)
    resized, left_out = resize_weights(weights, img_size=28)
    expected = resize_pos_embed(network.pos_embed, (4, 4), (7, 7))
    assert not left_out
    torch.testing.assert_close(resized[POSITIONS[layout]], expected)
    assert resized[POSITIONS[layout]].shape == (1, 50, vits.DIMS)
    same = [name for name in weights if resized[name] is weights[name]]
    assert len(same) == len(weights) - 1


def test_a_plane_stays_a_plane_when_shrunk() -> None:
    """16 x 16 positions become 8 x 8; away from the edges the plane is the same."""
    old = torch.arange(16.0) + 0.5
    plane = (old[:, None] + 2 * old[None]).reshape(1, 256, 1)
    weights = {
        'pos_embed': torch.cat([torch.full((1, 1, 1), 9.0), plane], 1),
        'patch_embed.proj.weight': torch.ones(1, 3, 2, 2),
    }
    resized, _ = resize_weights(weights, img_size=16)
    found = resized['pos_embed']
    assert found[0, 0, 0] == 9
    new = 2 * (torch.arange(8.0) + 0.5)
    expected = new[:, None] + 2 * new[None]
    inner = found[0, 1:, 0].reshape(8, 8)[2:6, 2:6]
    torch.testing.assert_close(inner, expected[2:6, 2:6])


def test_what_alternates_is_smoothed_when_shrunk() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(128).reshape(1, 256, 1)
    weights = {
        'pos_embed': torch.cat([torch.zeros(1, 1, 1), stripes], 1),
        'patch_embed.proj.weight': torch.ones(1, 3, 2, 2),
    }
    resized, _ = resize_weights(weights, img_size=8)
    inner = resized['pos_embed'][0, 1:, 0].reshape(4, 4)[:, 1:3]
    assert inner.abs().max() < 0.02


def test_larger_patches_of_larger_images_give_the_same_tokens() -> None:
    """The property that defines the pseudo-inverse: <resize(x), w'> = <x, w>."""
    weights = vits.checkpoint(vits.mmpretrain_vit())
    name = 'backbone.patch_embed.projection.weight'
    resized, _ = resize_weights(weights, img_size=32, patch_size=8)
    assert resized['backbone.pos_embed'] is weights['backbone.pos_embed']
    patch = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    larger = F.interpolate(patch, size=(8, 8), mode='bicubic', antialias=True)
    torch.testing.assert_close(
        F.conv2d(larger, resized[name]),
        F.conv2d(patch, weights[name]),
        atol=1e-4,
        rtol=1e-4,
    )


def test_smaller_patches_of_the_same_image_make_a_finer_grid() -> None:
    weights = vits.checkpoint(vits.mmpretrain_vit())
    resized, _ = resize_weights(weights, patch_size=2)
    network = vits.mmpretrain_vit(patch_size=2)
    network.load_state_dict(
        {k.removeprefix('backbone.'): v for k, v in resized.items()}, strict=True
    )
    assert network(vits.images())[0].shape == (2, 65, vits.DIMS)


def test_a_decoder_follows_the_grid_but_not_the_patches() -> None:
    weights = plain_mae.random_weights()
    resized, left_out = resize_weights(weights, img_size=24)
    assert not left_out
    for name in ('pos_embed', 'decoder_pos_embed'):
        expected = resize_pos_embed(weights[name], (4, 4), (6, 6))
        torch.testing.assert_close(resized[name], expected)
    resized, left_out = resize_weights(weights, patch_size=8)
    assert set(resized) == set(plain_mae.encoder_only(weights))
    assert set(left_out) == set(weights) - set(resized)
    assert 'patches of 4 pixels, not of 8' in left_out['decoder_pred.weight']


def test_what_cannot_be_resized_is_refused() -> None:
    weights = vits.checkpoint(vits.mmpretrain_vit())
    assert resize_weights(weights)[0].keys() == weights.keys()
    with pytest.raises(ValueError, match='img_size=18 is not a multiple of patch_size'):
        resize_weights(weights, img_size=18)
    oblong = {**weights, 'backbone.pos_embed': torch.zeros(1, 13, vits.DIMS)}
    with pytest.raises(ValueError, match='12 patches, which are not a square, and'):
        resize_weights(oblong, img_size=32)
    table = 'backbone.rel_pos_bias.relative_position_bias_table'
    with pytest.raises(ValueError, match='only absolute position embeddings can'):
        resize_weights({**weights, table: torch.zeros(3, 2)}, img_size=32)
    del weights['backbone.pos_embed']
    with pytest.raises(ValueError, match='no patch or position embedding'):
        resize_weights(weights, img_size=32)
