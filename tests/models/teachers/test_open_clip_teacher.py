"""OpenCLIPTeacher against open_clip's own networks."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from small_towers import (
    CLOSE,
    MEAN,
    STD,
    clip_config,
    clip_states,
    images,
    literal_attention,
    normalised,
    save,
    small_clip,
)
from torch import nn

from medic_mm.models.teachers import OpenCLIPTeacher
from medic_mm.models.teachers.open_clip_source import resolve_tower

OPENAI = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def quick(network: nn.Module) -> bool:
    return any(isinstance(module, QuickGELU) for module in network.modules())


@pytest.fixture(scope='module')
def clip() -> open_clip.CLIP:
    return small_clip()


@pytest.fixture
def weights(clip: open_clip.CLIP, tmp_path: Path) -> str:
    return save(clip, tmp_path / 'clip.safetensors')


def loaded(weights: str, model: dict | str | None = None, **kwargs) -> OpenCLIPTeacher:
    teacher = OpenCLIPTeacher(model or clip_config(), weights, **kwargs)
    teacher.init_weights()
    return teacher


@pytest.mark.parametrize(('layer', 'index'), [(-1, 2), (0, 0), (1, 1), (-3, 0)])
@pytest.mark.parametrize('norm', [False, True])
@torch.no_grad()
def test_tokens_are_the_hidden_state_of_the_chosen_block(
    clip, weights, layer, index, norm
):
    raw, batch = images()
    teacher = loaded(weights, layer=layer, norm=norm)
    out = teacher(batch, MEAN, STD)
    expected = clip_states(clip.visual, normalised(raw, *OPENAI))[index]
    if norm:
        expected = clip.visual.ln_post(expected)
    torch.testing.assert_close(out.cls_token, expected[:, 0], **CLOSE)
    torch.testing.assert_close(out.patch_tokens, expected[:, 1:], **CLOSE)
    assert out.attention is None


@torch.no_grad()
def test_projected_norm_of_the_class_token_is_clips_image_embedding(clip, weights):
    raw, batch = images()
    out = loaded(weights, norm=True)(batch, MEAN, STD)
    expected = clip.encode_image(normalised(raw, *OPENAI))
    torch.testing.assert_close(out.cls_token @ clip.visual.proj, expected, **CLOSE)


def test_later_blocks_do_not_run(weights):
    teacher = loaded(weights, layer=1)
    ran = []
    for i, block in enumerate(teacher.network.transformer.resblocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    teacher(images()[1], MEAN, STD, attention=True)
    assert ran == [0, 1]


@pytest.mark.parametrize('custom', [False, True])
@torch.no_grad()
def test_attention_is_the_blocks_softmax(tmp_path, custom):
    """Both block classes of open_clip: torch's attention, and its own with norms."""
    vision = dict(qk_norm=True) if custom else {}
    clip = small_clip(**vision)
    raw, batch = images(1)
    teacher = loaded(
        save(clip, tmp_path / 'w.safetensors'), clip_config(**vision), layer=1
    )
    out = teacher(batch, MEAN, STD, attention=True)
    states = clip_states(clip.visual, normalised(raw, *OPENAI))
    block = clip.visual.transformer.resblocks[1]
    inputs = block.ln_1(states[0])[0]
    q, k, _ = (inputs @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(
        32, 1
    )
    q, k = (x.reshape(17, 2, 16).transpose(0, 1) for x in (q, k))
    if custom:
        q, k = block.attn.ln_q(q), block.attn.ln_k(k)
    expected = literal_attention(q, k)
    torch.testing.assert_close(out.attention[0], expected[1:, 1:])
    torch.testing.assert_close(out.attention[0].sum(1), 1 - expected[1:, 0])
    torch.testing.assert_close(
        out.patch_tokens, teacher(batch, MEAN, STD).patch_tokens, atol=0, rtol=0
    )


@torch.no_grad()
def test_position_embedding_is_resized_as_open_clip_does(clip, weights, tmp_path):
    raw, batch = images(size=48)
    teacher = loaded(weights, input_size=48)
    config = clip_config(image_size=48)
    own = open_clip.CLIP(**config).eval()
    open_clip.load_checkpoint(own, weights)
    expected = clip_states(own.visual, normalised(raw, *OPENAI))[-1]
    out = teacher(batch, MEAN, STD)
    assert teacher.native_grid == (6, 6)
    torch.testing.assert_close(out.patch_tokens, expected[:, 1:], **CLOSE)


def test_the_text_tower_is_not_kept(weights):
    teacher = loaded(weights)
    names = dict(teacher.network.named_parameters())
    assert names.keys() == dict(small_clip().visual.named_parameters()).keys()
    held = [v for v in vars(teacher).values() if isinstance(v, nn.Module)]
    assert held == [] and not hasattr(teacher.network, 'token_embedding')


class TestWeights:
    """Strict loading, and the forms in which weights come."""

    @pytest.mark.parametrize('form', ['plain', 'wrapped', 'parallel', 'tower', 'half'])
    def test_forms_of_a_state_dict(self, clip, tmp_path, form):
        state = {
            'plain': clip.state_dict(),
            'wrapped': {'state_dict': clip.state_dict(), 'epoch': 3},
            'parallel': {f'module.{k}': v for k, v in clip.state_dict().items()},
            'tower': clip.visual.state_dict(),
            'half': {k: v.bfloat16() for k, v in clip.state_dict().items()},
        }[form]
        torch.save(state, tmp_path / 'w.pt')
        network = loaded(str(tmp_path / 'w.pt')).network
        for name, value in clip.visual.state_dict().items():
            expected = value.bfloat16().float() if form == 'half' else value
            assert network.state_dict()[name].equal(expected)

    def test_missing_and_unexpected_keys_are_named(self, clip, tmp_path):
        state = clip.state_dict()
        state.pop('visual.ln_pre.bias')
        state['visual.surplus'] = torch.ones(1)
        path = tmp_path / 'part.pt'
        torch.save(state, path)
        teacher = OpenCLIPTeacher(clip_config(), str(path))
        before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
        with pytest.raises(RuntimeError) as caught:
            teacher.init_weights()
        for part in (str(path), 'missing ln_pre.bias', 'surplus', 'weights=PATH'):
            assert part in str(caught.value)
        assert not teacher.ready
        assert all(v.equal(before[k]) for k, v in teacher.network.state_dict().items())

    def test_weights_of_another_width_are_refused(self, tmp_path):
        path = save(small_clip(width=48), tmp_path / 'wide.safetensors')
        with pytest.raises(RuntimeError, match=r'size mismatch for .*conv1\.weight'):
            loaded(path)

    def test_text_weights_alone_are_refused(self, clip, tmp_path):
        text = {k: v for k, v in clip.state_dict().items() if 'visual' not in k}
        torch.save(text, tmp_path / 'text.pt')
        with pytest.raises(RuntimeError, match='missing'):
            loaded(str(tmp_path / 'text.pt'))

    def test_no_weights_is_an_error_at_construction(self):
        with pytest.raises(ValueError, match='weights=None leaves OpenCLIPTeacher'):
            OpenCLIPTeacher(clip_config())

    def test_a_missing_file_is_named_before_training(self):
        teacher = OpenCLIPTeacher(clip_config(), 'no/such.safetensors')
        with pytest.raises(FileNotFoundError, match=r'no/such\.safetensors'):
            teacher.init_weights()

    def test_config_json_brings_its_statistics(self, weights, tmp_path):
        config = tmp_path / 'open_clip_config.json'
        mean, std = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]
        config.write_text(
            json.dumps(
                dict(model_cfg=clip_config(), preprocess_cfg=dict(mean=mean, std=std))
            )
        )
        seen = []
        teacher = loaded(weights, str(config))
        teacher.network.conv1.register_forward_pre_hook(
            lambda _, args: seen.append(args[0])
        )
        assert teacher.fingerprint() != loaded(weights).fingerprint()
        raw, batch = images()
        teacher(batch, MEAN, STD)
        torch.testing.assert_close(seen[0], normalised(raw, mean, std), **CLOSE)


class TestActivation:
    """The activation that weights were trained with is used, or said to be unknown."""

    @pytest.fixture
    def named(self, monkeypatch, tmp_path):
        """A small model in open_clip's tables, with a tag of each activation."""
        for name, flag in (('tiny', False), ('tiny-quickgelu', True)):
            config = {**clip_config(), **({'quick_gelu': True} if flag else {})}
            monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        tags = {
            'openai': dict(hf_hub='a/b/', mean=HALF[0], std=HALF[1], quick_gelu=True),
            'laion': dict(hf_hub='a/c/', mean=OPENAI[0], std=OPENAI[1]),
        }
        table = open_clip.pretrained._PRETRAINED
        monkeypatch.setitem(table, 'tiny', tags)
        monkeypatch.setitem(table, 'tiny-quickgelu', {'openai': tags['openai']})
        path = save(small_clip(), tmp_path / 'fetched.safetensors')
        monkeypatch.setattr(open_clip, 'download_pretrained', lambda config: path)

    @pytest.mark.parametrize('model', ['tiny', 'tiny-quickgelu'])
    @pytest.mark.parametrize(('tag', 'expected'), [('openai', True), ('laion', False)])
    @torch.no_grad()
    def test_the_tag_decides(self, named, model, tag, expected):
        teacher = loaded(tag, model)
        assert quick(teacher.network) is expected
        raw, batch = images()
        reference = small_clip(quick_gelu=expected)
        statistics = HALF if tag == 'openai' else OPENAI
        tokens = clip_states(reference.visual, normalised(raw, *statistics))[-1]
        torch.testing.assert_close(
            teacher(batch, MEAN, STD).cls_token, tokens[:, 0], **CLOSE
        )

    def test_nothing_is_fetched_at_construction(self, named, monkeypatch):
        monkeypatch.setattr(
            open_clip, 'download_pretrained', lambda config: pytest.fail('fetched')
        )
        OpenCLIPTeacher('tiny', 'openai')

    def test_a_failed_download_says_what_to_do(self, named, monkeypatch):
        def fail(config: dict) -> str:
            raise OSError('no route to host')

        monkeypatch.setattr(open_clip, 'download_pretrained', fail)
        with pytest.raises(RuntimeError) as caught:
            loaded('openai', 'tiny')
        for part in ("'openai' of tiny", 'a/b/', 'no route to host', 'weights=PATH'):
            assert part in str(caught.value)

    @pytest.mark.parametrize('model', [False, True])
    @pytest.mark.parametrize('archive', [False, True])
    @pytest.mark.filterwarnings('ignore:.*torch.jit')
    @torch.no_grad()
    def test_a_torchscript_archive_decides(self, tmp_path, model, archive):
        clip = small_clip(quick_gelu=archive)
        script = torch.jit.trace_module(
            clip, {'encode_image': torch.ones(1, 3, 32, 32)}, check_trace=False
        )
        script.save(tmp_path / 'clip.pt')
        config = {**clip_config(), 'quick_gelu': model}
        teacher = loaded(str(tmp_path / 'clip.pt'), config, norm=True)
        assert quick(teacher.network) is archive
        raw, batch = images()
        torch.testing.assert_close(
            teacher(batch, MEAN, STD).cls_token @ clip.visual.proj,
            script.encode_image(normalised(raw, *OPENAI)),
            **CLOSE,
        )

    def test_openais_markers_decide_in_a_state_dict(self, clip, tmp_path):
        state = dict(clip.state_dict())
        for marker in ('input_resolution', 'context_length', 'vocab_size'):
            state[marker] = torch.tensor(32)
        torch.save(state, tmp_path / 'openai.pt')
        assert quick(loaded(str(tmp_path / 'openai.pt')).network)

    def test_a_plain_file_leaves_it_to_the_model(self, weights):
        assert not quick(loaded(weights).network)
        assert quick(loaded(weights, {**clip_config(), 'quick_gelu': True}).network)

    @pytest.mark.parametrize(
        ('model', 'tag', 'expected'),
        [
            ('ViT-B-16', 'openai', True),
            ('ViT-B/16', 'openai', True),
            ('ViT-B-16-quickgelu', 'openai', True),
            ('ViT-B-16-quickgelu', 'laion2b_s34b_b88k', False),
            ('ViT-B-32', 'laion400m_e32', True),
            ('ViT-B-32', 'laion2b_s34b_b79k', False),
            # trained with QuickGELU, which its tag does not say
            ('roberta-ViT-B-32', 'laion2b_s12b_b32k', True),
        ],
    )
    def test_open_clips_own_tags(self, model, tag, expected):
        assert resolve_tower(model, tag, None).quick_gelu is expected


class TestStatistics:
    """Mean and std come from open_clip."""

    def test_of_tags(self):
        assert tuple(resolve_tower('ViT-L-14', 'openai', None).mean) == OPENAI[0]
        assert (
            tuple(resolve_tower('ViT-L-14', 'laion2b_s32b_b82k', None).std) == (HALF[1])
        )

    def test_of_a_local_file_where_all_tags_agree(self):
        imagenet = (0.485, 0.456, 0.406)
        assert resolve_tower('ViT-L-14-CLIPA', 'w.pt', None).mean == imagenet
        assert resolve_tower('ViT-L-14', 'w.pt', None).mean == OPENAI[0]


@pytest.mark.parametrize(
    ('model', 'weights', 'message'),
    [
        ('RN50', 'openai', 'TimmTeacher'),
        ('ViT-B-16-SigLIP', 'webli', "timm's vit_base_patch16_siglip_224.*TimmTeacher"),
        ('ViT-B-61', 'openai', 'near names: ViT-B-16'),
        ('ViT-B-16', 'opnai', "'opnai' is neither.*openai, laion400m_e31"),
        (clip_config(), 'openai', 'no pretrained|neither a local file'),
        ({'embed_dim': 8}, 'w.pt', 'needs embed_dim and vision_cfg'),
        (clip_config(patch=8), 'w.pt', "does not accept its vision_cfg.*'patch'"),
        (clip_config(image_size=(32, 64)), 'w.pt', 'not square.*input_size'),
        ('no/such.json', 'w.pt', 'no/such.json'),
    ],
)
def test_what_open_clip_cannot_build_is_refused(model, weights, message):
    with pytest.raises(ValueError, match=message):
        OpenCLIPTeacher(model, weights)


def test_norm_after_attentional_pooling_is_refused():
    config = clip_config(attentional_pool=True, attn_pooler_heads=2)
    with pytest.raises(ValueError, match=r'norm=True.*use norm=False'):
        OpenCLIPTeacher(config, 'w.pt', norm=True)
