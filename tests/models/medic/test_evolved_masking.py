"""EvolvedMasking: whose attention, at which epoch, and how many patches."""

from __future__ import annotations

import pytest
import torch
from evolving import SOURCES, build, losses_of, settings, train, unmasked
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from tiny import TinyTeacher, medic_config
from torch import nn

from medic_mm.masking import evolved_mask
from medic_mm.models.medic.evolved_masking import EvolvedMasking
from medic_mm.models.teachers import CachedTeacher
from medic_mm.models.vit.attention import summed_attention


@pytest.fixture(autouse=True)
def hub():
    """A run of its own, that knows no epoch yet."""
    MessageHub._instance_dict.pop('evolved', None)
    yield MessageHub.get_instance('evolved')
    MessageHub._instance_dict.pop('evolved')


class Patches(nn.Module):
    """Stands for a backbone where masks come from a teacher: it has a grid only."""

    def __init__(self, *grid: int) -> None:
        super().__init__()
        self.patch_resolution = grid


def prepared(grid: tuple[int, int] = (4, 4), **changes) -> EvolvedMasking:
    masking = MODELS.build(settings(**changes))
    masking.prepare(Patches(*grid), TinyTeacher())
    return masking


# masks


@pytest.mark.parametrize('method', ['em', 'hierarchical'])
@pytest.mark.parametrize(('ratio', 'count'), [(0.4, 11), (0.75, 21), (0.25, 7)])
def test_every_image_hides_the_same_exact_count(method, ratio, count):
    """int(28 * ratio): the count of BlockMask, at every stage."""
    masking = prepared((4, 7), method=method, mask_ratio=ratio)
    attention = torch.rand(3, 28, 28)
    images = torch.zeros(3, 3, 32, 56)
    for epoch in range(6):
        masking.progress = (epoch, 6)
        split, _ = masking(images, None, attention)
        assert split.mask.sum(1).tolist() == [count] * 3
        assert split.hidden.shape == (3, count)
        assert split.mask.gather(1, split.hidden).all()
        assert not split.mask.gather(1, split.visible).any()


def test_hides_what_the_function_of_masks_does():
    clustering = dict(spatial_bias=0.7, linkage='average')
    masking = prepared(method='hierarchical', noise='random', clustering=clustering)
    masking.schedule = type(masking.schedule)(gamma=0.5, clusters=(8, 3), spread=0)
    attention = torch.rand(4, 16, 16)
    torch.manual_seed(3)
    split, logs = masking(torch.zeros(4, 3, 32, 32), None, attention)
    torch.manual_seed(3)
    # epoch 1 of 4: alpha (2 / 4) ** 0.5; clusters 3 + (8 - 3) * 2 / 3, rounded down
    expected = evolved_mask(
        attention, (4, 4), 12, 0.5**0.5, 6, noise='random', **clustering
    )
    assert torch.equal(split.mask, expected)
    assert logs == dict(evolved_alpha=torch.tensor(0.5**0.5), evolved_clusters=6)


@pytest.mark.parametrize('source', SOURCES)
def test_a_seed_means_one_mask(source):
    model = build(source=source).eval()
    data = model.data_preprocessor(unmasked(), True)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(model.predict_pixels(**data)[1])
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert masks[0].sum(1).tolist() == [12] * 4


# whose attention


@pytest.mark.parametrize('source', SOURCES)
def test_attention_is_of_the_source_asked_for(source, monkeypatch):
    model = build(source=source)
    train(model, 2)
    seen = []
    monkeypatch.setattr(
        'medic_mm.models.medic.evolved_masking.evolved_mask',
        lambda attention, *a, **k: (
            seen.append(attention) or evolved_mask(attention, *a, **k)
        ),
    )
    data = model.data_preprocessor(unmasked(), True)
    images = data['inputs']
    losses = model(**data, mode='loss')
    if source == 'teacher':
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        expected = model.target_generator(images, mean, std, attention=True).attention
    elif source == 'student_online':
        expected = summed_attention(model.backbone, images)
    else:
        expected = summed_attention(model.masking.average.module, images)
        assert not torch.equal(expected, summed_attention(model.backbone, images))
    torch.testing.assert_close(seen[0], expected)
    assert all(value.isfinite().all() for value in losses.values())


@pytest.mark.parametrize('source', SOURCES)
def test_the_teacher_runs_once_a_step(source):
    model = build(source=source)
    train(model, 1)
    assert model.target_generator.calls == 1


def test_a_teacher_for_masks_alone_is_kept():
    model = build(weights=dict(pixel=1.0))
    assert set(losses_of(model)) >= {'loss_pixel', 'evolved_alpha'}
    assert build(dict(pixel=1.0), source='student_online').target_generator is None


@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_a_step_trains_every_weight(source, encoding):
    model = build(source=source, encoding=encoding)
    loss, logs = model.parse_losses(losses_of(model))
    assert loss == sum(v for k, v in logs.items() if k.startswith('loss_'))
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    idle = [n for n, p in trained.items() if p.grad is None or not p.grad.any()]
    assert idle == (['neck.mask_token'] if encoding == 'dense' else [])


def test_the_hosts_beit_has_masks_from_its_own_attention():
    config = medic_config('dense', weights=dict(token=1.0))
    arch = config['backbone']['arch']
    config['backbone'] = dict(
        type='mmpretrain.BEiTPretrainViT', arch=arch, img_size=32, patch_size=8
    )
    for source in SOURCES:
        model = MODELS.build(dict(config, masking=settings(source=source)))
        model.init_weights()
        train(model, 2)
    assert int(model.masking.num_masked) == 12


def test_pixels_of_images_outside_a_cache_are_asked_of_the_teacher_itself():
    model = build()
    model.target_generator = CachedTeacher(model.target_generator, attention=True)
    data = model.data_preprocessor(unmasked(), False)
    pixels, mask = model.predict_pixels(**data)
    assert pixels.shape == (4, 16, 192)
    assert mask.sum(1).tolist() == [12] * 4
    with pytest.raises(RuntimeError, match='has no cache yet'):
        model(**data, mode='loss')


# which epoch


def test_the_running_training_tells_the_epoch(hub):
    masking = prepared(progress=None)
    for epoch in (0, 2, 3):  # as after a resume: the hub jumps, nothing is counted here
        for key, value in dict(epoch=epoch, max_epochs=4, iter=99, max_iters=1).items():
            hub.update_info(key, value)
        stage = masking.stage()
        assert stage.alpha == ((epoch + 1) / 4) ** 0.2
        assert 0 <= stage.num_clusters - [8, 6, 4, 3][epoch] <= 2


def test_a_training_by_iterations_evolves_with_them(hub):
    masking = prepared(progress=None)
    for key, value in dict(epoch=0, max_epochs=1, iter=499, max_iters=1000).items():
        hub.update_info(key, value)
    assert masking.stage().alpha == 0.5**0.2
    # what is said counts for more than the training
    masking.progress = (0, 10)
    assert masking.stage().alpha == 0.1**0.2


def test_outside_a_training_masks_are_of_the_last_epoch():
    stage = prepared(progress=None).stage()
    assert stage.alpha == 1
    assert 3 <= stage.num_clusters <= 5


def test_stage_is_logged_and_not_trained_on():
    losses = losses_of(build())
    assert losses['evolved_alpha'] == torch.tensor(0.5**0.2)
    assert losses['evolved_clusters'] in (6, 7, 8)


# what does not fit


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(source='student'), "source='student' is unknown"),
        (dict(momentum=1.0), r'momentum=1.0 .* above 0 and below 1'),
        (dict(mask_ratio=0.01), 'would hide 0 of 16 patches'),
        (dict(mask_ratio=1.0), 'would hide 16 of 16 patches'),
        (dict(method='kmeans'), "method='kmeans' is unknown"),
        (dict(noise='blue'), "noise='blue' is unknown"),
        (dict(clustering=dict(spatial_bias=1.0)), "not a setting of method='em'"),
        (dict(clustering=dict(kappa=-1)), 'kappa=-1 .* above 0'),
        (
            dict(method='hierarchical', clustering=dict(linkage='ward')),
            "linkage='ward' is unknown",
        ),
    ],
)
def test_refuses_settings_before_the_first_step(changes, words):
    with pytest.raises(ValueError, match=words):
        prepared(**changes)


@pytest.mark.parametrize(
    ('schedule', 'words'),
    [
        (dict(gama=0.2), "schedule has no setting 'gama'"),
        (dict(gamma=-1), 'gamma=-1 .* at least 0'),
        (dict(clusters=(3, 8)), 'falls from first to last'),
        (dict(clusters=(8,)), 'must be two numbers'),
        (dict(clusters=(8, 3), spread=-1), 'spread=-1 .* at least 0'),
        (dict(clusters=(15, 3)), r'up to 17 clusters .* 4x4 has 16 patches'),
        (None, r'up to 42 clusters .* 4x4 has 16 patches'),
    ],
)
def test_refuses_a_schedule_before_the_first_step(schedule, words):
    with pytest.raises(ValueError, match=words):
        EvolvedMasking(schedule=schedule).prepare(Patches(4, 4), TinyTeacher())


def test_as_many_clusters_as_patches_are_allowed():
    schedule = dict(clusters=(14, 3), spread=2)
    EvolvedMasking(schedule=schedule).prepare(Patches(4, 4), TinyTeacher())


def test_refuses_a_teacher_without_attention_to_give():
    masking = MODELS.build(settings())
    for teacher, words in (
        (None, 'set target_generator'),
        (TinyTeacher(input_size=64, output_grid=(4, 4)), 'output_grid'),
        (CachedTeacher(TinyTeacher()), 'target_generator.attention=True'),
    ):
        with pytest.raises(ValueError, match=words):
            masking.prepare(Patches(4, 4), teacher)
    masking.prepare(Patches(4, 4), CachedTeacher(TinyTeacher(), attention=True))
    with pytest.raises(ValueError, match='the teacher gave none'):
        masking(torch.zeros(1, 3, 32, 32), None, None)


@pytest.mark.parametrize('source', SOURCES[1:])
def test_refuses_a_student_whose_attention_it_cannot_read(source):
    masking = MODELS.build(settings(source=source))
    with pytest.raises(ValueError, match=f"'{source}' cannot read .* of Patches"):
        masking.prepare(Patches(4, 4), None)
