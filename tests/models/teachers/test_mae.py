"""MAETeacher: its files, its relations and its decoder."""

from __future__ import annotations

import argparse
import copy
import fractions
import logging
from collections.abc import Callable
from pathlib import Path

import plain_mae
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmpretrain.models.utils import resize_pos_embed
from safetensors.torch import save_file
from torch import Tensor

from medic_mm.checkpoints.conversion import convert_keys
from medic_mm.models.teachers import MAETeacher
from medic_mm.registry import MODELS

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
FULL, VISUALIZE = 'mae_pretrain_vit_large_full.pth', 'mae_visualize_vit_large.pth'
ENCODER = 'mae_pretrain_vit_large.pth'


def settings(**changes) -> dict:
    config = dict(
        type='medic_mm.MAETeacher',
        arch=plain_mae.ARCH,
        block=3,
        input_size=16,
        patch_size=plain_mae.PATCH,
        decoder=plain_mae.DECODER,
    )
    return copy.deepcopy({**config, **changes})


def build(weights: str | Path | None, **changes) -> MAETeacher:
    """A teacher that has loaded the file."""
    teacher = MODELS.build(settings(weights=str(weights), **changes))
    teacher.init_weights()
    return teacher


def save(folder: Path, weights: dict, name: str = FULL) -> Path:
    torch.save({'model': weights}, folder / name)
    return folder / name


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    return plain_mae.random_weights()


@pytest.fixture(scope='module')
def teacher(weights, tmp_path_factory) -> MAETeacher:
    return build(save(tmp_path_factory.mktemp('mae'), weights))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def ask(teacher: MAETeacher, images: Tensor):
    return teacher(images, MEAN, STD)


def counted(teacher: MAETeacher, run: Callable[[], object]) -> list[str]:
    """Names of the encoder's modules that ``run`` calls."""
    called, hooks = [], []
    for name, module in teacher.network['backbone'].named_modules():
        note = lambda *_, name=name: called.append(name)  # noqa: E731
        hooks.append(module.register_forward_hook(note))
    run()
    for hook in hooks:
        hook.remove()
    return called


class TestRelations:
    @pytest.mark.parametrize('block', [1, 3, 4])
    def test_q_k_v_are_those_of_a_plain_mae(self, weights, tmp_path, images, block):
        teacher = build(save(tmp_path, weights), block=block)
        got = ask(teacher, images)
        _, blocks = plain_mae.encode(weights, images)
        parts = (got.query, got.key, got.value)
        for part, expected in zip(parts, blocks[block - 1], strict=True):
            torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)

    def test_images_are_normalised_to_imagenet(self, teacher, weights, images):
        pixels = images * 40 + 120  # 0..255, as a student with other statistics sees
        mean, std = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)
        got = teacher((pixels - mean) / std, mean, std)
        _, blocks = plain_mae.encode(weights, (pixels - MEAN) / STD)
        torch.testing.assert_close(got.value, blocks[2][2], atol=1e-5, rtol=0)

    def test_nothing_beyond_the_projection_of_the_block_is_run(self, teacher, images):
        called = counted(teacher, lambda: ask(teacher, images))
        assert [
            name for name in called if name.count('.') == 1 and 'layers' in name
        ] == [
            'layers.0',
            'layers.1',
        ]
        assert [name for name in called if name.startswith('layers.2')] == [
            'layers.2.ln1',
            'layers.2.attn.qkv',
        ]
        assert not [name for name in called if name.startswith('layers.3')]
        assert 'ln1' not in called

    def test_attention_of_the_class_token(self, teacher, weights, images):
        _, blocks = plain_mae.encode(weights, images)
        query, key, _ = blocks[teacher.block - 1]
        logits = query @ key.transpose(-2, -1) / 8**0.5
        expected = logits.softmax(-1)[:, :, 0, 1:]
        got = teacher.class_attention(images, MEAN, STD).weights.flatten(2)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)

    def test_what_it_says_of_itself(self, teacher, weights):
        assert (teacher.num_heads, teacher.embed_dims) == (3, 24)
        assert (teacher.grid, teacher.num_tokens) == ((4, 4), 17)
        assert (teacher.with_decoder, teacher.decoder_dims) == (True, 16)
        assert teacher.mask_token.equal(weights['mask_token'])

    @pytest.mark.parametrize('block', [0, 5, -1])
    def test_a_block_out_of_range_is_refused(self, block):
        with pytest.raises(ValueError, match=f'block={block} .* so use 1 to 4'):
            MODELS.build(settings(weights=FULL, block=block))


class TestDecoder:
    def test_pixels_are_those_of_a_plain_mae(self, teacher, weights):
        tokens = torch.randn(3, 17, 24, generator=torch.Generator().manual_seed(2))
        embedded = tokens @ weights['decoder_embed.weight'].T
        embedded = embedded + weights['decoder_embed.bias']
        got = teacher.embed_for_decoder(tokens)
        torch.testing.assert_close(got, embedded, atol=1e-5, rtol=0)
        expected = plain_mae.decode(weights, embedded)
        torch.testing.assert_close(teacher.decode(got), expected, atol=1e-5, rtol=0)

    def test_gradients_reach_the_input_and_no_parameter(self, teacher, weights):
        tokens = torch.randn(2, 17, 24, requires_grad=True)
        loss = teacher.decode(teacher.embed_for_decoder(tokens)).square().sum()
        (got,) = torch.autograd.grad(loss, tokens)
        again = tokens.detach().requires_grad_()
        embedded = again @ weights['decoder_embed.weight'].T
        embedded = embedded + weights['decoder_embed.bias']
        plain_mae.decode(weights, embedded).square().sum().backward()
        torch.testing.assert_close(got, again.grad, atol=1e-3, rtol=1e-4)
        assert all(p.grad is None for p in teacher.network.parameters())
        assert not any(p.requires_grad for p in teacher.network.parameters())

    def test_the_encoder_alone_has_no_decoder(self, weights, tmp_path, images):
        path = save(tmp_path, plain_mae.encoder_only(weights), ENCODER)
        teacher = build(path, decoder=None)
        assert (teacher.with_decoder, teacher.decoder_dims) == (False, None)
        _, blocks = plain_mae.encode(weights, images)
        assert torch.allclose(ask(teacher, images).key, blocks[2][1], atol=1e-5)
        with pytest.raises(
            RuntimeError, match='decoder=None leaves MAETeacher without'
        ):
            teacher.decode(torch.zeros(1, 17, 16))

    def test_a_decoder_in_the_file_may_be_left_out(self, weights, tmp_path):
        assert 'neck' not in build(save(tmp_path, weights), decoder=None).network

    def test_unknown_settings_are_refused(self):
        with pytest.raises(ValueError, match='unknown settings heads: there are'):
            MODELS.build(settings(weights=FULL, decoder=dict(heads=2)))

    @pytest.mark.parametrize('part', ['arch', 'decoder'])
    def test_heads_that_do_not_divide_are_refused(self, part):
        changed = {**settings()[part], 'num_heads': 5}
        width = changed['embed_dims']
        words = f'{part} of MAETeacher has num_heads=5, .* embed_dims={width}'
        with pytest.raises(ValueError, match=words):
            MODELS.build(settings(weights=FULL, **{part: changed}))


class TestFiles:
    @pytest.mark.parametrize('wrapper', ['model', 'state_dict', 'module', None])
    @pytest.mark.parametrize('layout', ['mae', 'mmpretrain'])
    @pytest.mark.parametrize('prefix', ['', 'module.'])
    def test_every_wrapper_and_layout(self, weights, tmp_path, wrapper, layout, prefix):
        named = convert_keys(weights, 'mae', layout)
        named = {prefix + name: value for name, value in named.items()}
        content = named if wrapper is None else {wrapper: named, 'epoch': 3}
        torch.save(content, tmp_path / 'w.pth')
        state = build(tmp_path / 'w.pth', norm_pix=True).network.state_dict()
        for name, value in convert_keys(weights, 'mae', 'mmpretrain').items():
            assert state[name].equal(value), name

    def test_safetensors(self, weights, tmp_path, teacher):
        save_file(weights, tmp_path / 'w.safetensors')
        other = build(tmp_path / 'w.safetensors', norm_pix=False)
        assert other.fingerprint() == teacher.fingerprint()

    def test_the_arguments_of_the_official_script_may_be_inside(
        self, weights, tmp_path, teacher
    ):
        content = {
            'model': weights,
            'args': argparse.Namespace(blr=1e-4, norm_pix=True),
        }
        torch.save(content, tmp_path / FULL)
        assert build(tmp_path / FULL).fingerprint() == teacher.fingerprint()
        torch.save({**content, 'more': fractions.Fraction(1)}, tmp_path / FULL)
        with pytest.raises(RuntimeError, match='carries pickled code'):
            build(tmp_path / FULL)

    def test_positions_are_resized_from_the_file(self, weights, tmp_path):
        teacher = build(save(tmp_path, weights), input_size=24)
        state = teacher.network.state_dict()
        for name, official in (
            ('backbone.pos_embed', 'pos_embed'),
            ('neck.decoder_pos_embed', 'decoder_pos_embed'),
        ):
            expected = resize_pos_embed(weights[official], (4, 4), (6, 6))
            assert state[name].shape[1] == 37
            assert state[name].equal(expected)

    @pytest.mark.parametrize('name', ['pos_embed', 'decoder_pos_embed'])
    def test_positions_are_never_drawn(self, weights, tmp_path, name):
        part = {key: value for key, value in weights.items() if key != name}
        with pytest.raises(
            RuntimeError, match=rf'missing \w+\.{name}; unexpected nothing'
        ):
            build(save(tmp_path, part))

    def test_a_mask_token_that_is_missing_is_no_zero(self, weights, tmp_path):
        part = {key: value for key, value in weights.items() if key != 'mask_token'}
        with pytest.raises(RuntimeError, match=r'missing neck\.mask_token; unexp'):
            build(save(tmp_path, part))

    def test_an_encoder_only_file_by_name(self):
        with pytest.raises(ValueError, match=f'encoder only, .*use {FULL}'):
            MODELS.build(settings(weights=f'somewhere/{ENCODER}'))
        with pytest.raises(ValueError, match=r'use mae_pretrain_vit_base_full\.pth'):
            MODELS.build(settings(arch='b', weights='mae_pretrain_vit_base.pth'))

    @pytest.mark.parametrize('layout', ['mae', 'mmpretrain'])
    def test_an_encoder_only_file_by_content(self, weights, tmp_path, layout):
        part = convert_keys(plain_mae.encoder_only(weights), 'mae', layout)
        with pytest.raises(RuntimeError, match=f'encoder only, .*use {FULL}'):
            build(save(tmp_path, part, 'w.pth'), norm_pix=True)

    @pytest.mark.parametrize(
        ('sizes', 'message'),
        [
            (
                dict(depth=5),
                'encoder in .* has depth=5, .* ask for depth=4, .* set arch',
            ),
            (dict(dims=36), 'encoder in .* has depth=4, embed_dims=36.* embed_dims=24'),
            (dict(patch=8), 'encoder in .* patch_size=8, but .* patch_size=4: '),
            (dict(decoder_depth=1), 'decoder in .* depth=1,.* depth=2.* set decoder'),
            (dict(decoder_dims=24), 'decoder in .* embed_dims=24, but .*embed_dims=16'),
        ],
    )
    def test_another_architecture_is_named(self, tmp_path, sizes, message):
        with pytest.raises(RuntimeError, match=message):
            build(save(tmp_path, plain_mae.random_weights(**sizes)))

    def test_a_file_that_does_not_fit_changes_nothing(self, weights, tmp_path):
        teacher = MODELS.build(settings(weights=str(save(tmp_path, weights))))
        before = copy.deepcopy(teacher.network.state_dict())
        save(tmp_path, {**weights, 'norm.weight': torch.ones(5)})
        with pytest.raises(RuntimeError, match=r'size mismatch for backbone\.ln1'):
            teacher.init_weights()
        after = teacher.network.state_dict()
        assert all(after[name].equal(value) for name, value in before.items())

    def test_other_networks_are_refused(self, weights, tmp_path):
        with pytest.raises(RuntimeError, match='no pre-trained MAE: none of the names'):
            build(save(tmp_path, {'layer1.0.conv.weight': torch.ones(1)}))
        tuned = {**plain_mae.encoder_only(weights), 'head.weight': torch.ones(1)}
        with pytest.raises(RuntimeError, match=r'no pre-trained MAE: .* head\.weight'):
            build(save(tmp_path, tuned))

    def test_no_file_and_no_weights_are_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='there is no such file'):
            build(tmp_path / FULL)
        with pytest.raises(ValueError, match='weights=None leaves MAETeacher without'):
            MODELS.build(settings())

    def test_an_unknown_architecture_is_refused(self):
        with pytest.raises(ValueError, match="arch='giant' is unknown"):
            MODELS.build(settings(arch='giant', weights=FULL))


class TestPixelSpace:
    @pytest.mark.parametrize(
        ('name', 'expected'),
        [
            (FULL, True),
            ('mae_pretrain_vit_huge_full.pth', True),
            (VISUALIZE, False),
            ('mae_visualize_vit_large_ganloss.pth', False),
            (
                'mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth',
                True,
            ),
            ('my-teacher-df72726a.pth', True),
        ],
    )
    def test_known_files_tell_it(self, name, expected):
        assert MODELS.build(settings(weights=f'a/{name}')).norm_pix is expected
        same = settings(weights=name, norm_pix=expected)
        assert MODELS.build(same).norm_pix is expected
        with pytest.raises(
            ValueError, match=f'contradicts {name}.*norm_pix={expected}'
        ):
            MODELS.build(settings(weights=name, norm_pix=not expected))

    @pytest.mark.parametrize('name', ['epoch_12.pth', f'my_{FULL}', f'{FULL}.bak'])
    def test_it_is_asked_for(self, name):
        with pytest.raises(ValueError, match='norm_pix=None') as caught:
            MODELS.build(settings(weights=name))
        for part in (name, 'mae_pretrain_vit_*_full.pth', 'mae_visualize_vit_*.pth'):
            assert part in str(caught.value)
        for given in (True, False):
            config = settings(weights=name, norm_pix=given)
            assert MODELS.build(config).norm_pix is given

    def test_an_encoder_alone_needs_none(self):
        assert MODELS.build(settings(weights='w.pth', decoder=None)).norm_pix is None

    def test_the_record_of_a_checkpoint_is_heeded(self, weights, tmp_path):
        config = "head=dict(norm_pix=False, type='MAEPretrainHead')"
        content = {'state_dict': convert_keys(weights, 'mae', 'mmpretrain')}
        torch.save({**content, 'meta': dict(cfg=config)}, tmp_path / 'epoch_1.pth')
        assert build(tmp_path / 'epoch_1.pth', norm_pix=False).ready
        with pytest.raises(RuntimeError, match='own config says norm_pix=False: set'):
            build(tmp_path / 'epoch_1.pth', norm_pix=True)

    def test_adversarial_weights_are_warned_of(self):
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())
        logger = MMLogger.get_current_instance()
        logger.addHandler(handler)
        try:
            MODELS.build(settings(weights='mae_visualize_vit_large_ganloss.pth'))
        finally:
            logger.removeHandler(handler)
        assert any('GAN loss' in line for line in records)


class Student(BaseModule):
    def __init__(self, teacher: MAETeacher) -> None:
        super().__init__(init_cfg=dict(type='Constant', layer='Linear', val=7.0))
        self.layer = torch.nn.Linear(2, 2)
        self.target_generator = teacher


class TestFrozen:
    def test_it_is_no_part_of_the_model(self, teacher):
        model = Student(teacher)
        before = teacher.fingerprint()
        assert set(model.state_dict()) == {'layer.weight', 'layer.bias'}
        assert len(list(model.parameters())) == 2
        model.train()
        model.init_weights()
        assert (model.layer.weight == 7).all()
        assert not any(m.training for m in teacher.network.modules())
        assert teacher.fingerprint() == before

    def test_copies_share_it(self, teacher):
        copied = copy.deepcopy(Student(teacher))
        assert copied.target_generator is teacher

    def test_it_needs_its_weights(self, images):
        teacher = MODELS.build(settings(weights=FULL))
        for use in (
            lambda: ask(teacher, images),
            lambda: teacher.decode(torch.zeros(1, 17, 16)),
            lambda: teacher.class_attention(images, MEAN, STD),
        ):
            with pytest.raises(RuntimeError, match='has no weights yet'):
                use()

    def test_random_teachers_are_alike_and_leave_the_generator(self, images):
        config = settings(random_weights=True)
        torch.manual_seed(3)
        one = MODELS.build(config)
        drawn = torch.rand(2)
        torch.manual_seed(4)
        other = MODELS.build(config)
        torch.manual_seed(3)
        assert torch.rand(2).equal(drawn)
        one.init_weights()
        other.init_weights()
        assert ask(one, images).query.equal(ask(other, images).query)
        assert one.norm_pix is None
        # a place is told from another
        assert one.network['backbone'].pos_embed.std() > 0.01
        assert one.mask_token.abs().sum() > 0

    def test_attention_is_no_part_of_the_output(self, teacher, images):
        with pytest.raises(ValueError, match='use patch_attention'):
            teacher(images, MEAN, STD, attention=True)
