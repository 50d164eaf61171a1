"""No training step waits for its GPU, nor mixes devices or types (on a fake one)."""

from __future__ import annotations

import evolving
import pytest
import torch
from fake_cuda import WAITED, FakeCUDA, to_fake_cuda
from small_towers import CLIP, VIT, VIT_KWARGS
from tiny import batch, build_medic
from tiny_mimhd import build_mimhd, image_batch, initialised, tinymim_config

from medic_mm.models.teachers import OpenCLIPTeacher, TimmTeacher

MATCHINGS = dict(
    adaptive=dict(type='medic_mm.AdaptiveMatching'),
    sinkhorn=dict(type='medic_mm.AdaptiveMatching', balance='sinkhorn'),
    average=dict(type='medic_mm.AverageMatching'),
    select=dict(type='medic_mm.SelectMatching'),
    relation_heads=dict(type='medic_mm.RelationHeadMatching'),
)


@pytest.fixture
def gpu(monkeypatch):
    """The GPU; its global generator is the CPU's, which nothing draws from."""
    monkeypatch.setattr(torch.cuda, 'default_generators', (torch.default_generator,))
    common = torch.cuda.amp.common  # says that autocast is to be left off without one
    monkeypatch.setattr(common, 'amp_definitely_not_available', lambda: False)
    with FakeCUDA():
        yield


def steps(model, data: dict, amp: bool) -> None:
    """Two of them, up to the loss: the second finds what the first one kept."""
    to_fake_cuda(model).train()
    for _ in range(2):
        inputs = model.data_preprocessor(data, True)
        assert inputs['inputs'].is_cuda
        with torch.autocast('cuda', torch.float16, enabled=amp):
            loss, logs = model.parse_losses(model(**inputs, mode='loss'))
            product = torch.ones(2, 2, device='cuda') @ torch.ones(2, 2, device='cuda')
        assert product.dtype == (torch.float16 if amp else torch.float32)
        assert loss.is_cuda
        assert loss.requires_grad
        assert len(logs) > 2


both = pytest.mark.parametrize('amp', [False, True], ids=['fp32', 'amp'])


@both
@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_medic(gpu, encoding, amp):
    steps(build_medic(encoding), batch(), amp)


@both
@pytest.mark.parametrize('source', evolving.SOURCES)
@pytest.mark.parametrize('method', ['em', 'hierarchical'])
def test_medic_with_evolved_masks(gpu, source, method, amp):
    model = evolving.build(source=source, method=method)
    steps(model, evolving.unmasked(), amp)


@both
@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_medic_with_a_spatial_bias(gpu, linkage, amp):
    clustering = dict(spatial_bias=1.0, linkage=linkage)
    model = evolving.build(method='hierarchical', clustering=clustering)
    steps(model, evolving.unmasked(), amp)


@both
@pytest.mark.parametrize('matching', MATCHINGS)
def test_mimhd(gpu, matching, amp):
    steps(build_mimhd(matching=MATCHINGS[matching]), image_batch(), amp)


@both
def test_tinymim(gpu, amp):
    steps(initialised(tinymim_config()), image_batch(), amp)


@both
@pytest.mark.parametrize('kind', ['clip', 'timm'])
def test_teachers(gpu, kind, amp):
    if kind == 'clip':
        teacher = OpenCLIPTeacher(dict(model_cfg=CLIP), random_weights=True)
    else:
        teacher = TimmTeacher(
            VIT, input_size=32, model_kwargs=VIT_KWARGS, random_weights=True
        )
    teacher.init_weights()
    to_fake_cuda(teacher)
    mean = std = torch.ones(3, 1, 1, device='cuda')
    images = torch.zeros(2, 3, 32, 32, device='cuda')
    with torch.autocast('cuda', torch.float16, enabled=amp):
        out = teacher(images, mean, std, attention=True)
    assert out.patch_tokens.is_cuda
    assert out.attention.shape == (2, 16, 16)


# that the fake one tells what it is for


@pytest.mark.parametrize(
    'ask',
    [
        lambda values: values.sum().item(),
        lambda values: bool((values > 0).all()),
        lambda values: values.cpu(),
        lambda values: values.nonzero(),
        lambda values: values[values > 0],
    ],
)
def test_asking_for_values_is_told(gpu, ask):
    with pytest.raises(WAITED):
        ask(torch.zeros(3, device='cuda'))


def test_mixing_devices_is_told(gpu):
    values = torch.zeros(3, device='cuda')
    assert (values + torch.ones(3).to('cuda') + torch.tensor(1.0)).is_cuda
    with pytest.raises(RuntimeError, match='device'):
        values + torch.ones(3)
    assert torch.ones(2).sum().item() == 2
