"""A hub that does not answer costs seconds, and names that are near are offered."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import torch
from torch import nn

from medic_mm.errors import FileError, UserError
from medic_mm.models.teachers import OpenCLIPTeacher, TimmTeacher, hub
from medic_mm.models.teachers.hub import fetch, hub_address, kept_file, unreachable

NETWORK = nn.Linear(500, 500)  # one megabyte


@pytest.fixture
def no_proxies(monkeypatch) -> None:
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'no_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def silent():
    """A host that takes the call and says nothing."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield f'http://127.0.0.1:{server.getsockname()[1]}/some/file'


@pytest.fixture
def answering():
    """A host that answers with an error."""
    server = socket.create_server(('127.0.0.1', 0))

    def answer() -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(1000)
            caller.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')

    threading.Thread(target=answer, daemon=True).start()
    yield f'http://127.0.0.1:{server.getsockname()[1]}/some/file'
    server.close()


@pytest.mark.usefixtures('no_proxies')
def test_hosts_that_are_there_and_not(answering, silent):
    assert unreachable(answering) is None, 'an error is an answer'
    start = time.perf_counter()
    assert unreachable(silent, 0.3) is not None
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    assert 'refused' in unreachable(f'http://127.0.0.1:{port}/', 2.0)
    assert time.perf_counter() - start < 2


@pytest.mark.usefixtures('no_proxies')
def test_a_hub_that_says_nothing_costs_seconds(silent, monkeypatch):
    monkeypatch.setattr(hub, 'PATIENCE', 0.6)
    monkeypatch.setattr(hub, 'QUICK', 0.2)
    asked = []

    def download() -> None:
        asked.append(1)
        time.sleep(30)

    start = time.perf_counter()
    with pytest.raises(FileError) as error:
        fetch('the weights of a tower', silent, NETWORK, download)
    assert time.perf_counter() - start < 3
    assert asked == [1]
    for part in ('the weights of a tower', silent, '1 MB', 'weights=PATH'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)
    assert hub.QUICK < hub.PATIENCE <= 5


def test_the_budget_is_five_seconds():
    assert 0 < hub.QUICK < hub.PATIENCE <= 5


@pytest.mark.usefixtures('no_proxies')
def test_a_slow_download_from_a_hub_that_answers_is_waited_for(answering, monkeypatch):
    monkeypatch.setattr(hub, 'QUICK', 0.1)

    def download() -> str:
        time.sleep(0.5)
        return 'file'

    assert fetch('weights', answering, NETWORK, download) == 'file'


def test_what_is_on_this_machine_is_not_asked_for():
    found = fetch('weights', 'http://nowhere', NETWORK, pytest.fail, lambda: 'kept')
    assert found == 'kept'


def test_files_of_the_cache_are_found(monkeypatch, tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(b'x')
    asked = []

    def cache(repository, name, revision=None):
        asked.append((repository, name, revision))
        path = tmp_path / name
        return str(path) if path.exists() else object()

    monkeypatch.setattr(hub, 'try_to_load_from_cache', cache)
    found = kept_file('timm/vit@main', ['a.bin', 'model.safetensors'])
    assert found == str(tmp_path / 'model.safetensors')
    assert asked[0] == ('timm/vit', 'a.bin', 'main')
    assert kept_file('timm/vit', ['a.bin']) is None
    assert hub_address('timm/vit').startswith('http')


@pytest.mark.parametrize(
    ('model', 'first'),
    [('vit-b-16', 'ViT-B-16'), ('VIT_B_16', 'ViT-B-16'), ('ViT-b-32', 'ViT-B-32')],
)
def test_the_nearest_open_clip_name_comes_first(model, first):
    with pytest.raises(UserError, match=rf'near names: {first}[,.]'):
        OpenCLIPTeacher(model, 'openai')


@pytest.mark.parametrize(
    ('tag', 'first'), [('open-ay', 'openai'), ('laion2b_s34b', 'laion2b_s34b_b88k')]
)
def test_the_nearest_tag_comes_first(tag, first):
    with pytest.raises(UserError, match=rf'has the tags {first},'):
        OpenCLIPTeacher('ViT-B-16', tag)


@pytest.mark.parametrize(
    ('model', 'first'),
    [
        ('ViT_Base_Patch16_224', 'vit_base_patch16_224'),
        ('vit-base-patch16-224', 'vit_base_patch16_224'),
        ('vit_base_patch16_224.MAE', 'mae'),
        ('vit_base_patch16_224.dinno', 'dino'),
    ],
)
def test_the_nearest_timm_name_comes_first(model, first):
    with pytest.raises(UserError, match=rf'near names: {first}[,.]'):
        TimmTeacher(model, 'timm')


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(model_kwargs=dict(num_heads=5)), 'timm does not build it'),
        (dict(model_kwargs=dict(no_such=1)), 'timm does not build it .*no_such'),
        (dict(layer=0.0), 'layer=0.0 .* whole number'),
        (dict(layer=True), 'layer=True'),
        (dict(input_size=0), 'input_size=0 .* at least 1'),
        (dict(input_size=float('nan')), 'input_size=nan'),
        (dict(output_grid=(0, 2)), 'output_grid=0 .* at least 1'),
        (dict(output_grid=(2, 2, 2)), 'output_grid=.* must be two numbers'),
    ],
)
def test_numbers_of_a_teacher_are_checked(kwargs, words):
    with pytest.raises(UserError, match=words):
        TimmTeacher('test_vit', random_weights=True, **kwargs)


@pytest.mark.parametrize(
    ('vision', 'words'),
    [
        (dict(head_width=12), 'vision_cfg.head_width=12 .* 2 heads|do not divide'),
        (dict(head_width=64), 'head_width=64 .* gives 0 heads'),
        (dict(width=32.0), r'vision_cfg\.width=32\.0'),
        (dict(patch_size=0), r'vision_cfg\.patch_size=0'),
        (dict(patch_size=12), 'not a multiple of its patch size 12'),
        (dict(layers=-1), r'vision_cfg\.layers=-1'),
    ],
)
def test_towers_that_cannot_run_are_refused(vision, words):
    config = dict(
        embed_dim=24,
        vision_cfg=dict(layers=3, width=40, head_width=20, patch_size=8, image_size=32),
    )
    config['vision_cfg'].update(vision)
    with pytest.raises(UserError, match=words):
        OpenCLIPTeacher(config, random_weights=True)


def test_scaled_cosines_are_no_readable_attention():
    from small_towers import clip_config

    plain = OpenCLIPTeacher(clip_config(), random_weights=True)
    assert plain.gives_attention
    custom = clip_config(block_type='custom', scaled_cosine_attn=True)
    assert not OpenCLIPTeacher(custom, random_weights=True).gives_attention


SMALL = dict(depth=2, embed_dim=48, num_heads=3)


@pytest.mark.parametrize(
    ('model', 'kwargs'),
    [
        ('test_vit', {}),
        ('beit_base_patch16_224', SMALL),
        ('eva02_tiny_patch14_224', SMALL),
        ('vit_relpos_base_patch16_cls_224', SMALL),
    ],
)
@torch.no_grad()
def test_what_a_timm_teacher_says_of_its_attention_is_so(model, kwargs):
    """One of each file of timm that has a class token."""
    teacher = TimmTeacher(model, random_weights=True, model_kwargs=kwargs)
    assert teacher.gives_attention
    side, length = teacher.input_size, teacher.grid[0] * teacher.grid[1]
    images = torch.randn(1, 3, side, side)
    attention = teacher.encode(images, attention=True).attention
    assert attention.shape == (1, length, length)
    assert (attention >= 0).all() and (attention.sum(-1) <= 1 + 1e-5).all()
    del teacher.network.blocks[-1].attn.fused_attn
    assert not teacher.gives_attention
    with pytest.raises(UserError, match='attention cannot be read'):
        teacher.encode(images, attention=True)


def test_networks_without_the_parts_of_a_vit_are_refused():
    with pytest.raises(UserError, match='use a plain ViT with a class token'):
        TimmTeacher(
            'tnt_s_patch16_224', random_weights=True, model_kwargs=dict(depth=1)
        )
