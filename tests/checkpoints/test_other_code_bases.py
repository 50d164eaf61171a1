"""Published checkpoints of other code bases load, and compute what they did there."""

from __future__ import annotations

import re

import plain_mae
import pytest
import torch
import vits
from mmpretrain.models.backbones import BEiTViT
from timm.models.beit import Beit
from torch import Tensor

from medic_mm.checkpoints import convert_keys, convert_weights

Weights = dict[str, Tensor]


def released_student(**positions) -> Beit:
    """timm's BEiT has the names of the students of MEDiC and MaskDistill."""
    return vits.fill(
        Beit(
            img_size=vits.IMAGE,
            patch_size=vits.PATCH,
            embed_dim=vits.DIMS,
            depth=vits.DEPTH,
            num_heads=vits.HEADS,
            init_values=0.1,
            global_pool='token',
            num_classes=0,
            **positions,
        )
    )


def released_file(student: Beit) -> Weights:
    weights = {f'module.student.{k}': v for k, v in student.state_dict().items()}
    # what else the full checkpoints hold
    weights['module.student.mask_token'] = torch.ones(1, 1, vits.DIMS)
    weights['module.distill_head.weight'] = torch.ones(4, vits.DIMS)
    weights['module.decoder.decoder_embed.weight'] = torch.ones(8, vits.DIMS)
    return weights


def load(host: torch.nn.Module, weights: Weights) -> None:
    short = {name.removeprefix('backbone.'): value for name, value in weights.items()}
    host.load_state_dict(short, strict=True)


class TestReleasedStudents:
    @pytest.mark.parametrize('full', [True, False])
    def test_absolute_positions(self, full: bool) -> None:
        student = released_student(use_abs_pos_emb=True)
        weights = released_file(student) if full else dict(student.state_dict())
        done = convert_weights(weights, 'auto', 'mmpretrain')
        rest = {'distill_head.weight', 'decoder.decoder_embed.weight', 'mask_token'}
        assert set(done.left_out) == (rest if full else set())
        host = vits.mmpretrain_vit(layer_scale_init_value=0.1)
        load(host, done.weights)
        with torch.no_grad():
            tokens = host(vits.images())[0]
            expected = student.forward_features(vits.images())
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)

    def test_shared_relative_positions_go_to_the_hosts_beit(self) -> None:
        student = released_student(use_abs_pos_emb=False, use_shared_rel_pos_bias=True)
        weights = released_file(student)
        index = 'relative_position_index'  # a buffer that the released code saves
        beit = BEiTViT(
            vits.ARCH,
            img_size=vits.IMAGE,
            patch_size=vits.PATCH,
            out_type='raw',
            final_norm=True,
            use_rel_pos_bias=False,
            use_shared_rel_pos_bias=True,
            layer_scale_init_value=0.1,
        )
        beit.eval()
        weights[f'module.student.rel_pos_bias.{index}'] = beit.state_dict()[
            f'rel_pos_bias.{index}'
        ]
        done = convert_weights(weights, 'auto', 'mmpretrain')
        hub = dict(done.weights)
        assert hub.pop('backbone.mask_token').equal(torch.ones(1, 1, vits.DIMS))
        short = {k.removeprefix('backbone.'): v for k, v in hub.items()}
        found = beit.load_state_dict(short, strict=False)
        assert not found.missing_keys
        assert not found.unexpected_keys
        with torch.no_grad():
            tokens = beit(vits.images())[0]
            expected = student.forward_features(vits.images())
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize('target', ['timm', 'mae', 'mmseg'])
    def test_relative_positions_have_no_other_place(self, target: str) -> None:
        student = released_student(use_shared_rel_pos_bias=True)
        with pytest.raises(ValueError, match=f"'{target}' has no place for .*backbone"):
            convert_weights(released_file(student), 'auto', target)


def hugging_face(weights: Weights, start: str = 'vit.') -> Weights:
    """Names of transformers' ViTMAE, written out step by step as in its converter."""
    renamed = {}
    for name, value in weights.items():
        decoder = name.startswith(('decoder', 'mask_token'))
        block = re.match(r'(decoder_)?blocks\.(\d+)\.(.*)', name)
        if block is None:
            if decoder:
                new = f'decoder.{name}'
            elif name.startswith('norm'):
                new = start + name.replace('norm', 'layernorm')
            else:
                short = name.replace('pos_embed', 'position_embeddings').replace(
                    'patch_embed.proj', 'patch_embeddings.projection'
                )
                new = f'{start}embeddings.{short}'
            renamed[new] = value
            continue
        at = 'decoder.decoder_layers' if decoder else f'{start}encoder.layer'
        at, inner = f'{at}.{block[2]}', block[3]
        if inner.startswith('attn.qkv'):
            kind = inner.rpartition('.')[2]
            for part, piece in zip(
                ('query', 'key', 'value'), value.chunk(3), strict=True
            ):
                renamed[f'{at}.attention.attention.{part}.{kind}'] = piece.clone()
            continue
        for old, new in (
            ('norm1', 'layernorm_before'),
            ('norm2', 'layernorm_after'),
            ('attn.proj', 'attention.output.dense'),
            ('mlp.fc1', 'intermediate.dense'),
            ('mlp.fc2', 'output.dense'),
        ):
            inner = inner.replace(old, new)
        renamed[f'{at}.{inner}'] = value
    return renamed


class TestHuggingFace:
    @pytest.mark.parametrize('start', ['vit.', ''])
    def test_all_names_and_bits(self, start: str) -> None:
        weights = plain_mae.random_weights()
        if not start:  # ViTMAEModel is the encoder alone
            weights = plain_mae.encoder_only(weights)
        done = convert_weights(hugging_face(weights, start), 'auto', 'mae')
        assert not done.left_out
        assert set(done.weights) == set(weights)
        assert all(done.weights[k].equal(v) for k, v in weights.items())

    def test_queries_without_keys_are_refused(self) -> None:
        weights = hugging_face(plain_mae.random_weights())
        del weights['vit.encoder.layer.1.attention.attention.key.bias']
        with pytest.raises(ValueError, match=r'layer\.1\..*query\.bias has no .*key'):
            convert_weights(weights, 'auto', 'mmpretrain')


class TestOthers:
    @pytest.mark.parametrize('wrapper', ['module.', '_orig_mod.', 'module._orig_mod.'])
    def test_wrapped_networks_such_as_tinymims(self, wrapper: str) -> None:
        weights = plain_mae.encoder_only(plain_mae.random_weights())
        wrapped = {wrapper + name: value for name, value in weights.items()}
        done = convert_keys(wrapped, 'auto', 'mmpretrain')
        assert done.keys() == convert_keys(weights, 'mae', 'mmpretrain').keys()

    def test_a_fine_tuned_official_network(self) -> None:
        weights = plain_mae.encoder_only(plain_mae.random_weights())
        weights['head.weight'] = torch.ones(10, plain_mae.DIMS)
        done = convert_weights(weights, 'auto', 'mmpretrain')
        assert done.left_out == {'head.weight': 'classifier'}

    def test_a_bare_network_of_mmpretrain(self) -> None:
        network = vits.mmpretrain_vit(layer_scale_init_value=0.1)
        done = convert_weights(network.state_dict(), 'auto', 'mmpretrain')
        assert done.weights.keys() == vits.checkpoint(network).keys()

    def test_a_segmentor_with_mmpretrains_network(self) -> None:
        weights = vits.checkpoint(vits.mmpretrain_vit(layer_scale_init_value=0.1))
        whole = {**weights, 'decode_head.conv_seg.weight': torch.ones(1)}
        whole['neck.upsample_4x.0.weight'] = torch.ones(1)
        done = convert_weights(whole, 'auto', 'timm')
        assert len(done.weights) == len(weights)
        assert set(done.left_out) == set(whole) - set(weights)

    @pytest.mark.parametrize(
        'prefix', ['teacher.', 'target_generator.', 'module.teacher.']
    )
    def test_a_teacher_alone_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match='of a teacher alone'):
            convert_weights({f'{prefix}visual.proj': torch.ones(1)}, 'auto', 'timm')
