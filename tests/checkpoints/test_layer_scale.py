"""LayerScale as a part of the projections."""

from __future__ import annotations

import pytest
import torch
import vits

from medic_mm.checkpoints import fold_layer_scale


def test_a_folded_network_computes_the_same() -> None:
    scaled = vits.mmpretrain_vit(layer_scale_init_value=0.1)
    weights = vits.checkpoint(scaled)
    before = {name: value.clone() for name, value in weights.items()}
    folded, names = fold_layer_scale(weights)
    assert set(names) == {name for name in weights if 'gamma' in name}
    assert all(weights[name].equal(value) for name, value in before.items())
    plain = vits.mmpretrain_vit()
    plain.load_state_dict(
        {k.removeprefix('backbone.'): v for k, v in folded.items()}, strict=True
    )
    with torch.no_grad():
        torch.testing.assert_close(
            plain(vits.images())[0], scaled(vits.images())[0], atol=1e-5, rtol=0
        )


def test_rows_and_biases_are_multiplied() -> None:
    at = 'backbone.layers.0.attn'
    weights = {
        f'{at}.gamma1.weight': torch.tensor([2.0, -1.0]),
        f'{at}.proj.weight': torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        f'{at}.proj.bias': torch.tensor([5.0, 6.0]),
    }
    folded, _ = fold_layer_scale(weights)
    assert folded[f'{at}.proj.weight'].tolist() == [[2, 4], [-3, -4]]
    assert folded[f'{at}.proj.bias'].tolist() == [10, -6]
    assert f'{at}.gamma1.weight' not in folded


def test_a_scale_without_projection_is_refused() -> None:
    weights = {'backbone.layers.0.ffn.gamma2.weight': torch.ones(2)}
    with pytest.raises(ValueError, match=r'has no backbone\.layers\.0\.ffn\.layers\.1'):
        fold_layer_scale(weights)
