"""Between the code bases: same tokens, same bits, every name, nothing unsaid."""

from __future__ import annotations

import itertools
from pathlib import Path

import plain_mae
import pytest
import torch
import vits
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor

from medic_mm.checkpoints import convert_keys, convert_weights, detect_layout
from medic_mm.checkpoints.layouts import LAYOUTS, TARGETS

Weights = dict[str, Tensor]


def same_bits(left: Weights, right: Weights) -> bool:
    return set(left) == set(right) and all(
        left[name].equal(value) and left[name].dtype == value.dtype
        for name, value in right.items()
    )


class TestSameTokens:
    @pytest.mark.parametrize('scale', [0.0, 0.1])
    def test_timm(self, scale: float) -> None:
        host = vits.mmpretrain_vit(layer_scale_init_value=scale)
        weights = convert_keys(vits.checkpoint(host), 'mmpretrain', 'timm')
        network = vits.timm_vit(init_values=scale or None)
        network.load_state_dict(weights, strict=True)
        with torch.no_grad():
            tokens = network.forward_features(vits.images())
            expected = host(vits.images())[0]
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)

    def test_timm_with_the_norm_after_the_mean(self) -> None:
        host = vits.mmpretrain_vit(out_type='avg_featmap', final_norm=False)
        weights = convert_keys(vits.checkpoint(host), 'mmpretrain', 'timm')
        network = vits.timm_vit(global_pool='avg')
        network.load_state_dict(weights, strict=True)
        with torch.no_grad():
            expected = host(vits.images())[0]
            torch.testing.assert_close(
                network(vits.images()), expected, atol=1e-5, rtol=0
            )

    def test_back_from_timm_with_a_norm_before_the_blocks(self) -> None:
        network = vits.fill(vits.timm_vit(pre_norm=True, num_classes=5))
        done = convert_weights(network.state_dict(), 'timm', 'mmpretrain')
        assert done.left_out == {
            'head.weight': 'classifier',
            'head.bias': 'classifier',
        }
        host = vits.mmpretrain_vit(pre_norm=True)
        load(host, done.weights)
        with torch.no_grad():
            tokens = host(vits.images())[0]
            expected = network.forward_features(vits.images())
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)

    def test_official_mae_with_layer_scale_folded(self) -> None:
        host = vits.fill(
            VisionTransformer(
                plain_mae.ARCH,
                img_size=plain_mae.PATCH * plain_mae.SIDE,
                patch_size=plain_mae.PATCH,
                out_type='raw',
                layer_scale_init_value=0.1,
            )
        )
        done = convert_weights(vits.checkpoint(host), 'mmpretrain', 'mae')
        names = plain_mae.encoder_only(plain_mae.random_weights())
        assert set(done.weights) == set(names)
        assert len(done.folded) == 2 * plain_mae.DEPTH
        with torch.no_grad():
            expected = host(vits.images())[0]
            tokens, _ = plain_mae.encode(done.weights, vits.images())
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize('scale', [0.0, 0.1])
    def test_mmseg_reads_its_own_file(self, scale: float, tmp_path: Path) -> None:
        backbones = pytest.importorskip('mmseg.models.backbones')
        host = vits.mmpretrain_vit(out_type='featmap', layer_scale_init_value=scale)
        weights = convert_keys(vits.checkpoint(host), 'mmpretrain', 'mmseg')
        torch.save({'state_dict': weights}, tmp_path / 'a.pth')
        network = backbones.MAE(
            img_size=vits.IMAGE,
            patch_size=vits.PATCH,
            embed_dims=vits.DIMS,
            num_layers=vits.DEPTH,
            num_heads=vits.HEADS,
            norm_cfg=dict(type='LN', eps=1e-6),
            init_values=1.0,
            final_norm=True,
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')),
        )
        network.init_weights()
        own = set(network.state_dict())
        missing = {
            name for name in own - set(weights) if 'relative_position' not in name
        }
        assert set(weights) <= own
        assert scale or {name.split('.')[-1] for name in missing} == {
            'gamma_1',
            'gamma_2',
        }
        assert not (scale and missing)
        network.eval()
        network.out_indices = [vits.DEPTH - 1]
        with torch.no_grad():
            (features,), (expected,) = network(vits.images()), host(vits.images())
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize('whole', [False, True])
    def test_open_clip(self, whole: bool) -> None:
        transformer = pytest.importorskip('open_clip.transformer')
        tower = vits.fill(
            transformer.VisionTransformer(
                image_size=vits.IMAGE,
                patch_size=vits.PATCH,
                width=vits.DIMS,
                layers=vits.DEPTH,
                heads=vits.HEADS,
                mlp_ratio=4,
                output_dim=4,
                output_tokens=True,
            )
        )
        weights = dict(tower.state_dict())
        if whole:
            weights = {f'visual.{k}': v for k, v in weights.items()}
            text = 'transformer.resblocks.0.attn.in_proj_weight'
            weights |= {text: torch.ones(3), 'positional_embedding': torch.ones(7, 4)}
        done = convert_weights(weights, 'auto', 'mmpretrain')
        assert done.source == 'open_clip'
        reasons = set(done.left_out.values())
        assert ('text tower' in reasons) is whole
        assert 'projection into the space of texts' in reasons
        host = vits.mmpretrain_vit(pre_norm=True, norm_cfg=dict(type='LN', eps=1e-5))
        load(host, done.weights)
        with torch.no_grad():
            tokens = host(vits.images())[0]
            pooled, patches = tower(vits.images())
            expected = tokens[:, 0] @ tower.proj
        torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(patches, tokens[:, 1:], atol=1e-5, rtol=0)


def load(host: torch.nn.Module, weights: Weights) -> None:
    short = {name.removeprefix('backbone.'): value for name, value in weights.items()}
    host.load_state_dict(short, strict=True)


# what an encoder may have, and the layouts that have a place for it
KINDS = {
    'plain': (dict(), TARGETS),
    'layer scale': (
        dict(layer_scale_init_value=0.1),
        ('mmpretrain', 'mmseg', 'timm'),
    ),
    'norm before': (dict(pre_norm=True), ('mmpretrain', 'timm')),
    'norm after the mean': (dict(out_type='avg_featmap'), ('mmpretrain', 'timm')),
}


class TestEveryDirection:
    @pytest.mark.parametrize('kind', KINDS)
    def test_no_name_is_lost_and_the_way_back_gives_the_same_bits(self, kind) -> None:
        settings, layouts = KINDS[kind]
        weights = vits.checkpoint(vits.mmpretrain_vit(**settings))
        for source, target in itertools.permutations(layouts, 2):
            given = convert_keys(weights, 'mmpretrain', source)
            assert len(given) == len(weights)
            done = convert_weights(given, source, target)
            assert not done.left_out
            assert not done.folded
            assert len(done.weights) == len(weights)
            assert same_bits(convert_keys(done.weights, target, source), given)
            assert same_bits(convert_keys(done.weights, target, 'mmpretrain'), weights)

    @pytest.mark.parametrize('layout', TARGETS)
    def test_names_are_those_of_the_network(self, layout: str) -> None:
        weights = convert_keys(
            vits.checkpoint(vits.mmpretrain_vit()), 'mmpretrain', layout
        )
        assert detect_layout(weights) == {'timm': 'mae'}.get(layout, layout)
        assert same_bits(
            convert_keys(weights, 'auto', 'mmpretrain'),
            convert_keys(weights, layout, 'mmpretrain'),
        )

    def test_half_precision_stays(self) -> None:
        network = vits.mmpretrain_vit(layer_scale_init_value=0.1).half()
        for target in TARGETS:
            done = convert_keys(vits.checkpoint(network), 'mmpretrain', target)
            assert {value.dtype for value in done.values()} == {torch.float16}

    def test_values_are_not_copied(self) -> None:
        weights = vits.checkpoint(vits.mmpretrain_vit())
        done = convert_keys(weights, 'mmpretrain', 'timm')
        assert done['pos_embed'] is weights['backbone.pos_embed']


class TestWhatIsLeftOut:
    def test_decoder_and_projection_are_reported(self, caplog) -> None:
        weights = convert_keys(plain_mae.random_weights(), 'mae', 'mmpretrain')
        weights['head.projection.weight'] = torch.ones(2, 2)
        done = convert_weights(weights, 'mmpretrain', 'timm')
        decoder = {name for name in weights if name.startswith('neck.')}
        assert set(done.left_out) == decoder | {'head.projection.weight'}
        assert len(done.weights) + len(done.left_out) == len(weights)
        assert convert_keys(weights, 'mmpretrain', 'timm').keys() == done.weights.keys()
        assert 'neck.mask_token' in caplog.text
        assert 'head.projection.weight' in caplog.text

    def test_a_decoder_goes_to_the_official_layout(self) -> None:
        weights = plain_mae.random_weights()
        hub = convert_keys(weights, 'mae', 'mmpretrain')
        done = convert_weights(hub, 'mmpretrain', 'mae')
        assert not done.left_out
        assert same_bits(done.weights, weights)

    @pytest.mark.parametrize('target', ['mae', 'mmseg'])
    def test_what_changes_the_encoder_is_refused(self, target: str) -> None:
        weights = vits.checkpoint(vits.mmpretrain_vit(pre_norm=True))
        with pytest.raises(
            ValueError, match=r'no place for backbone\.pre_norm\.weight'
        ):
            convert_keys(weights, 'mmpretrain', target)

    def test_names_of_the_backbone_that_nobody_knows_are_refused(self) -> None:
        weights = vits.checkpoint(vits.mmpretrain_vit())
        weights['backbone.adapter.weight'] = torch.ones(1)
        with pytest.raises(ValueError, match=r"'mmpretrain': backbone\.adapter"):
            convert_keys(weights, 'mmpretrain', 'timm')

    def test_a_tower_of_open_clip_is_no_target(self) -> None:
        assert set(LAYOUTS) - set(TARGETS) == {'open_clip'}
        with pytest.raises(ValueError, match="='open_clip' is not a known layout"):
            convert_keys({}, 'mmpretrain', 'open_clip')

    @pytest.mark.parametrize('whole', [False, True])
    def test_relative_positions_of_mmseg(self, whole: bool) -> None:
        weights = convert_keys(
            vits.checkpoint(vits.mmpretrain_vit(layer_scale_init_value=0.1)),
            'mmpretrain',
            'mmseg',
        )
        table = 'layers.0.attn.relative_position_bias_table'
        index = 'layers.0.attn.relative_position_index'
        trained = {**weights, table: torch.zeros(52, 2), index: torch.zeros(2, 2)}
        if whole:
            trained = {f'backbone.{k}': v for k, v in trained.items()}
            trained['decode_head.conv_seg.weight'] = torch.ones(1)
            table = f'backbone.{table}'
        done = convert_weights(trained, 'auto', 'mmseg')
        assert same_bits(done.weights, weights)
        assert len(done.left_out) == 2 + whole
        trained[table] = torch.ones(52, 2)
        with pytest.raises(ValueError, match='was trained, and without this bias'):
            convert_weights(trained, 'auto', 'mmpretrain')
