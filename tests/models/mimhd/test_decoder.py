"""DualViewDecoder: each patch predicted once, as the host's decoder would."""

from __future__ import annotations

import copy

import plain_mae
import pytest
import torch
from torch import Tensor

from medic_mm.checkpoints.conversion import convert_keys
from medic_mm.masking import PatchSplit, gather_tokens, random_mask
from medic_mm.models.mimhd.decoder import DualViewDecoder
from medic_mm.models.teachers import MAETeacher
from medic_mm.registry import MODELS

LENGTH, WIDTH = 16, 12
NAME = 'mae_pretrain_vit_large_full.pth'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory) -> MAETeacher:
    path = tmp_path_factory.mktemp('mae') / NAME
    torch.save({'model': plain_mae.random_weights()}, path)
    teacher = MAETeacher(
        arch=copy.deepcopy(plain_mae.ARCH),
        block=2,
        weights=str(path),
        input_size=16,
        patch_size=plain_mae.PATCH,
        decoder=plain_mae.DECODER,
    )
    teacher.init_weights()
    return teacher


def build(teacher: MAETeacher, width: int = WIDTH, views: int = 2) -> DualViewDecoder:
    torch.manual_seed(0)
    neck = MODELS.build(
        dict(
            type='medic_mm.DualViewDecoder',
            embed_dims=width,
            teacher_dims=plain_mae.DIMS,
            decoder_dims=plain_mae.DECODER_DIMS,
            views=views,
        )
    )
    neck.init_weights()
    neck.start_from(teacher)
    return neck


def draw(num_masked: int, batch: int = 3, width: int = WIDTH) -> tuple:
    generator = torch.Generator().manual_seed(num_masked)
    mask = random_mask(batch, (4, 4), num_masked, generator)
    tokens = torch.randn(batch, 1 + LENGTH, width, generator=generator)
    return tokens, PatchSplit.from_mask(mask)


def by_the_host(
    neck: DualViewDecoder, teacher: MAETeacher, tokens: Tensor, split: PatchSplit
) -> Tensor:
    """The host's decoder on the tokens that the mask keeps."""
    decoder = copy.deepcopy(teacher.network['neck'])
    decoder.mask_token.data.copy_(neck.mask_token)
    tokens = neck.adapter(tokens)
    kept = torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], split.visible)], 1)
    return decoder(kept, split.restore)


@pytest.mark.parametrize('num_masked', [8, 4, 12, 1, 16])
def test_it_equals_the_host_on_both_views(teacher, num_masked):
    neck, (tokens, split) = build(teacher), draw(num_masked)
    with torch.no_grad():
        neck.mask_token.add_(torch.randn(neck.mask_token.shape))
        got = neck(tokens, split, teacher)
        first = by_the_host(neck, teacher, tokens, split)
        other = PatchSplit.from_mask(~split.mask)
        second = by_the_host(neck, teacher, tokens, other)
    for row in range(len(tokens)):
        for patch in range(LENGTH):
            view = first if split.mask[row, patch] else second
            torch.testing.assert_close(
                got[row, patch], view[row, patch], atol=1e-5, rtol=0
            )


def test_a_single_view_is_the_host_alone(teacher):
    neck, (tokens, split) = build(teacher, views=1), draw(6)
    with torch.no_grad():
        got = neck(tokens, split, teacher)
        expected = by_the_host(neck, teacher, tokens, split)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


class Recorder:
    """Stands in for a teacher: what it is asked to decode, and an answer to know."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def embed_for_decoder(self, tokens: Tensor) -> Tensor:
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        self.calls.append(tokens)
        numbers = torch.arange(len(tokens) * LENGTH, dtype=torch.float32)
        return numbers.view(len(tokens), LENGTH, 1)


@pytest.mark.parametrize('num_masked', [8, 5, 0, 16])
def test_views_complement_and_each_patch_is_predicted_once(num_masked):
    neck = DualViewDecoder(embed_dims=16, teacher_dims=16, decoder_dims=16)
    neck.mask_token.data.fill_(-9)
    tokens, split = draw(num_masked, batch=2, width=16)
    recorder = Recorder()
    got = neck(tokens, split, recorder)[..., 0]
    (views,) = recorder.calls  # one call
    assert views.shape == (4, 17, 16)
    hidden = (views[:, 1:] == -9).all(-1)
    assert hidden[:2].equal(split.mask)
    assert hidden[2:].equal(~split.mask)
    for view in (views[:2], views[2:]):
        assert view[:, 0].equal(tokens[:, 0])
    # what a view shows is the student's token at that place
    assert views[:2, 1:][~split.mask].equal(tokens[:, 1:][~split.mask])
    assert views[2:, 1:][split.mask].equal(tokens[:, 1:][split.mask])
    # a prediction's number says from which row and patch it was taken
    numbers = torch.arange(2 * LENGTH).view(2, LENGTH)
    expected = torch.where(split.mask, numbers, numbers + 2 * LENGTH)
    assert got.equal(expected.float())


def test_no_prediction_sees_its_own_token(teacher):
    neck, (tokens, split) = build(teacher), draw(5, batch=1)
    tokens.requires_grad_()
    pixels = neck(tokens, split, teacher)
    for patch in range(LENGTH):
        (grad,) = torch.autograd.grad(pixels[0, patch].sum(), tokens, retain_graph=True)
        same_side = split.mask[0] == split.mask[0, patch]
        seen = grad[0, 1:].abs().sum(-1) > 0
        assert seen.equal(~same_side)
        assert grad[0, 0].abs().sum() > 0  # the class token is in both views


def test_gradients_reach_student_adapter_and_mask_token_alone(teacher):
    neck, (tokens, split) = build(teacher), draw(8)
    tokens.requires_grad_()
    neck(tokens, split, teacher).square().mean().backward()
    trained = dict(neck.named_parameters())
    assert set(trained) == {'mask_token', 'adapter.weight', 'adapter.bias'}
    for name, value in {**trained, 'tokens': tokens}.items():
        assert value.grad is not None and value.grad.abs().sum() > 0, name
    assert all(value.grad is None for value in teacher.network.parameters())


def test_the_mask_token_starts_as_the_teachers_and_is_its_own(teacher):
    neck = build(teacher)
    assert neck.mask_token.equal(teacher.mask_token)
    before = teacher.mask_token.clone()
    neck.mask_token.data.add_(1)
    assert teacher.mask_token.equal(before)


def test_equal_widths_need_no_adapter(teacher):
    neck = build(teacher, width=plain_mae.DIMS)
    assert set(neck.state_dict()) == {'mask_token'}
    tokens, split = draw(8, width=plain_mae.DIMS)
    with torch.no_grad():
        got = neck(tokens, split, teacher)
        first = by_the_host(neck, teacher, tokens, split)
    assert torch.allclose(got[split.mask], first[split.mask], atol=1e-5)


def test_the_decoder_is_not_in_the_checkpoint(teacher):
    names = convert_keys(plain_mae.random_weights(), 'mae', 'mmpretrain')
    decoder = {n.removeprefix('neck.') for n in names if n.startswith('neck.')}
    assert decoder & set(build(teacher).state_dict()) == {'mask_token'}


def test_misfits_are_named(teacher):
    with pytest.raises(ValueError, match='views=3 of DualViewDecoder must be 1 or 2'):
        DualViewDecoder(12, 24, 16, views=3)
    with pytest.raises(ValueError, match=r'decoder_dims=20 .* width, 16'):
        DualViewDecoder(12, 24, 20).start_from(teacher)
    with pytest.raises(ValueError, match=r'teacher_dims=32 .* width, 24'):
        DualViewDecoder(12, 32, 16).start_from(teacher)
    tokens, split = draw(8)
    with pytest.raises(ValueError, match='covers 16 patches but there are 16 tokens'):
        build(teacher)(tokens[:, 1:], split, teacher)
    unread = MAETeacher(arch=copy.deepcopy(plain_mae.ARCH), block=1, weights=NAME)
    with pytest.raises(RuntimeError, match='no weights yet'):
        DualViewDecoder(12, 24, 16).start_from(unread)
