"""TimmTeacher against timm's own networks, and with a real file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from small_towers import (
    CLOSE,
    MEAN,
    STD,
    VIT,
    VIT_KWARGS,
    images,
    literal_attention,
    normalised,
    save,
    small_clip,
    small_vit,
)
from torch import Tensor, nn

from medic_mm.models.teachers import TimmTeacher

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHALLOW = dict(weights='w.pth', model_kwargs=dict(depth=1))
PREFIX = 3  # class token and two registers


def loaded(weights: str, model: str = VIT, **kwargs) -> TimmTeacher:
    kwargs = {'input_size': 32, 'model_kwargs': VIT_KWARGS, **kwargs}
    teacher = TimmTeacher(model, weights, **kwargs)
    teacher.init_weights()
    return teacher


def statistics(teacher: TimmTeacher) -> tuple:
    config = teacher.network.pretrained_cfg
    return config['mean'], config['std']


def blocks_output(network: nn.Module, batch: Tensor) -> list[Tensor]:
    """Hidden states after each block, caught while the whole network runs."""
    states: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, args, out: states.append(out))
        for block in network.blocks
    ]
    network.forward_features(batch)
    for hook in hooks:
        hook.remove()
    return states


@pytest.fixture(scope='module')
def vit() -> nn.Module:
    return small_vit()


@pytest.fixture
def weights(vit: nn.Module, tmp_path: Path) -> str:
    return save(vit, tmp_path / 'vit.safetensors')


@pytest.mark.parametrize(('layer', 'index'), [(-1, 2), (0, 0), (-2, 1)])
@pytest.mark.parametrize('norm', [False, True])
@torch.no_grad()
def test_tokens_are_the_hidden_state_of_the_chosen_block(
    vit, weights, layer, index, norm
):
    raw, batch = images()
    teacher = loaded(weights, layer=layer, norm=norm)
    out = teacher(batch, MEAN, STD)
    expected = blocks_output(vit, normalised(raw, *statistics(teacher)))[index]
    if norm:
        expected = vit.norm(expected)
    assert out.patch_tokens.shape == (2, 16, 32)
    torch.testing.assert_close(out.cls_token, expected[:, 0], **CLOSE)
    torch.testing.assert_close(out.patch_tokens, expected[:, PREFIX:], **CLOSE)


@torch.no_grad()
def test_the_distillation_token_is_dropped(tmp_path):
    name, kwargs = 'deit_tiny_distilled_patch16_224', dict(depth=1)
    own = timm.create_model(name, img_size=32, **kwargs).eval()
    path = save(own, tmp_path / 'deit.safetensors')
    raw, batch = images()
    out = loaded(path, name, model_kwargs=kwargs, norm=True)(batch, MEAN, STD)
    expected = own.forward_features(normalised(raw, *IMAGENET))
    torch.testing.assert_close(out.cls_token, expected[:, 0], **CLOSE)
    torch.testing.assert_close(out.patch_tokens, expected[:, 2:], **CLOSE)


def test_later_blocks_do_not_run(weights):
    teacher = loaded(weights, layer=1)
    ran = []
    for i, block in enumerate(teacher.network.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    teacher(images()[1], MEAN, STD, attention=True)
    assert ran == [0, 1]


@pytest.mark.parametrize('qk_norm', [False, True])
@torch.no_grad()
def test_attention_is_the_blocks_softmax(tmp_path, qk_norm):
    vit = small_vit(qk_norm=qk_norm)
    teacher = loaded(
        save(vit, tmp_path / 'vit.safetensors'),
        layer=1,
        model_kwargs={**VIT_KWARGS, 'qk_norm': qk_norm},
    )
    raw, batch = images(1)
    out = teacher(batch, MEAN, STD, attention=True)
    state = blocks_output(vit, normalised(raw, *statistics(teacher)))[0]
    block = vit.blocks[1]
    q, k, _ = block.attn.qkv(block.norm1(state))[0].split(32, 1)
    q, k = (x.reshape(19, 2, 16).transpose(0, 1) for x in (q, k))
    expected = literal_attention(block.attn.q_norm(q), block.attn.k_norm(k))
    torch.testing.assert_close(out.attention[0], expected[PREFIX:, PREFIX:])
    torch.testing.assert_close(
        out.attention[0].sum(1), 1 - expected[PREFIX:, :PREFIX].sum(1)
    )
    # the fused kernel is back in place, and the tokens are the same
    assert teacher.network.blocks[1].attn.fused_attn == vit.blocks[1].attn.fused_attn
    torch.testing.assert_close(
        out.patch_tokens, teacher(batch, MEAN, STD).patch_tokens, **CLOSE
    )


@torch.no_grad()
def test_attention_with_rotary_positions_is_rebuilt_from_the_block(tmp_path):
    """The block's output follows from its attention: other classes read well too."""
    name, kwargs = 'vit_small_patch16_dinov3', dict(depth=1)
    own = timm.create_model(name, img_size=32, num_classes=0, **kwargs).eval()
    teacher = loaded(save(own, tmp_path / 'eva.safetensors'), name, model_kwargs=kwargs)
    batch = images(1)[1]
    seen: dict[str, Tensor] = {}
    attn = teacher.network.blocks[0].attn
    attn.attn_drop.register_forward_hook(lambda _, a, out: seen.update(weights=out))
    attn.proj.register_forward_pre_hook(lambda _, args: seen.update(mixed=args[0]))
    attn.register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    out = teacher(batch, MEAN, STD, attention=True)
    value = attn.qkv(seen['tokens'])[0].chunk(3, -1)[2]
    if attn.q_bias is not None:
        value = value + attn.v_bias
    value = value.reshape(9, 6, 64).transpose(0, 1)
    mixed = (seen['weights'][0] @ value).transpose(0, 1).reshape(1, 9, 384)
    torch.testing.assert_close(seen['mixed'], mixed, **CLOSE)
    torch.testing.assert_close(out.attention, seen['weights'].mean(1)[:, 5:, 5:])


@torch.no_grad()
def test_position_embedding_is_resized_as_timm_does(weights):
    raw, batch = images(size=48)
    teacher = loaded(weights, input_size=48)
    own = small_vit(dynamic_img_size=True)  # resizes at each call
    expected = own.forward_features(normalised(raw, *statistics(teacher)))
    out = loaded(weights, input_size=48, norm=True)(batch, MEAN, STD)
    assert teacher.native_grid == (6, 6)
    torch.testing.assert_close(out.patch_tokens, expected[:, PREFIX:], **CLOSE)


class TestWeights:
    """Strict loading, timm's own weights, and OpenAI's."""

    def test_missing_and_unexpected_keys_are_named(self, vit, tmp_path):
        state = vit.state_dict()
        state.pop('blocks.1.norm1.bias')
        state['decoder.weight'] = torch.ones(1)
        path = tmp_path / 'part.pth'
        torch.save({'model': state}, path)
        with pytest.raises(RuntimeError) as caught:
            loaded(str(path))
        for part in (str(path), 'missing blocks.1.norm1.bias', 'decoder.weight'):
            assert part in str(caught.value)
        assert 'weights=PATH' in str(caught.value)

    def test_a_network_of_another_depth_is_refused(self, weights):
        with pytest.raises(RuntimeError, match=r'missing blocks\.3\.norm1\.weight'):
            loaded(weights, model_kwargs={**VIT_KWARGS, 'depth': 4})

    def test_timms_own_weights_are_fetched_late_and_loaded(self, monkeypatch):
        own = small_vit(num_classes=1000)
        fetched = []

        def hub(*args, **kwargs) -> dict:
            fetched.append(args[0])
            return own.state_dict()

        monkeypatch.setattr(timm.models._builder, 'load_state_dict_from_hf', hub)
        teacher = TimmTeacher(VIT, 'timm', input_size=48, model_kwargs=VIT_KWARGS)
        assert fetched == []
        teacher.init_weights()
        assert fetched == ['timm/test_vit.r160_in1k']
        for name, value in teacher.network.state_dict().items():
            if name != 'pos_embed':
                assert value.equal(own.state_dict()[name])
        assert teacher.network.pos_embed.shape[1] == 36 + PREFIX

    def test_a_failed_download_says_what_to_do(self, monkeypatch):
        def hub(*args, **kwargs) -> dict:
            raise OSError('no route to host')

        monkeypatch.setattr(timm.models._builder, 'load_state_dict_from_hf', hub)
        with pytest.raises(RuntimeError) as caught:
            loaded('timm')
        for part in ('test_vit', 'no route to host', 'weights=PATH'):
            assert part in str(caught.value)

    @torch.no_grad()
    def test_an_openai_file_needs_the_quickgelu_model(self, tmp_path):
        clip = small_clip(quick_gelu=True, head_width=64, width=64)
        state = dict(clip.state_dict())
        for marker in ('input_resolution', 'context_length', 'vocab_size'):
            state[marker] = torch.tensor(32)
        path = tmp_path / 'openai.pt'
        torch.save(state, path)
        kwargs = dict(depth=3, embed_dim=64, num_heads=1, patch_size=8, mlp_ratio=2.0)
        with pytest.raises(RuntimeError, match="'vit_base_patch16_clip_quickgelu_224'"):
            loaded(str(path), 'vit_base_patch16_clip_224', model_kwargs=kwargs)
        name = 'vit_base_patch16_clip_quickgelu_224'
        teacher = loaded(str(path), name, model_kwargs=kwargs, norm=True)
        raw, batch = images()
        torch.testing.assert_close(
            teacher(batch, MEAN, STD).cls_token @ clip.visual.proj,
            clip.encode_image(normalised(raw, *statistics(teacher))),
            **CLOSE,
        )

    def test_a_tag_of_the_other_activation_is_refused(self):
        for weights in ('timm', 'w.pth'):
            with pytest.raises(ValueError, match=r'clip_quickgelu_224\.openai'):
                TimmTeacher(
                    'vit_base_patch16_clip_224.openai',
                    weights,
                    model_kwargs=dict(depth=1),
                )


@pytest.mark.parametrize(
    ('model', 'settings', 'message'),
    [
        (VIT, dict(), 'weights=None leaves TimmTeacher'),
        (VIT, dict(weights='tim'), "neither 'timm' nor a local file"),
        ('vit_smal_patch16_224', dict(weights='w.pth'), 'near names: vit_small_patch1'),
        ('vit_base_patch16_siglip_224', SHALLOW, 'no class token'),
        ('test_vit2', dict(weights='w.pth'), 'no class token'),
        ('resnet18', dict(weights='w.pth'), 'no class token'),
        ('xcit_nano_12_p16_224', dict(weights='w.pth'), 'no class token'),
        ('beit_base_patch16_224', {**SHALLOW, 'norm': True}, 'use norm=False'),
        (
            VIT,
            dict(weights='w.pth', model_kwargs=dict(num_classes=3)),
            'model_kwargs has num_classes',
        ),
    ],
)
def test_what_is_no_teacher_is_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        TimmTeacher(model, **settings)


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_real_teacher_sees_more_than_pixels(shared, cifar10):
    """Nearest neighbours of 100 images among 100 others, and the other way round."""
    teacher = TimmTeacher(
        'vit_small_patch14_dinov2',
        str(shared / 'teachers' / 'vits14.safetensors'),
        input_size=112,
        norm=True,
    )
    teacher.init_weights()
    assert teacher.grid == (8, 8) and teacher.embed_dims == 384
    assert statistics(teacher) == IMAGENET
    folders = sorted(path for path in (cifar10 / 'val').iterdir() if path.is_dir())
    files = [f for folder in folders for f in sorted(folder.iterdir())[:20]]
    pixels = np.stack([np.asarray(Image.open(f).convert('RGB')) for f in files])
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - MEAN) / STD
    labels = torch.arange(10).repeat_interleave(20)
    first = torch.arange(200) % 20 < 10

    def accuracy(features: Tensor) -> float:
        """Votes of the 10 nearest, weighted by exp(cosine / 0.07)."""
        features = F.normalize(features.flatten(1), dim=1)
        right = 0
        for bank in (first, ~first):
            cosine, nearest = (features[~bank] @ features[bank].T).topk(10)
            votes = F.one_hot(labels[bank][nearest]) * (cosine / 0.07).exp()[..., None]
            right += (votes.sum(1).argmax(1) == labels[~bank]).sum().item()
        return right / len(features)

    tokens = [teacher(part, MEAN, STD).cls_token for part in batch.split(50)]
    # measured: 0.345 against 0.200
    assert accuracy(torch.cat(tokens)) > accuracy(batch) + 0.08
