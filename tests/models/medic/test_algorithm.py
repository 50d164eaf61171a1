"""MEDiC as a whole: routing, a teacher out of reach, terms that cost nothing."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from tiny import batch, build_medic, medic_config

from medic_mm.engine.optimizers import LayerDecayOptimWrapperConstructor
from medic_mm.models.medic.evolved_masking import given_masks

OPTIM = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))


def losses_of(model, data):
    return model(**model.data_preprocessor(copy.deepcopy(data), True), mode='loss')


def train(model, steps=3):
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    for step in range(steps):
        model.train_step(batch(seed=step), optimizer)
    return optimizer


@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_one_step_is_the_sum_of_its_parts(encoding):
    model = build_medic(encoding).eval()
    data = model.data_preprocessor(batch(), True)
    images, split = data['inputs'], given_masks(data['data_samples'], 'cpu')
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    teacher = model.target_generator(images, mean, std)
    if encoding == 'sparse':
        tokens = model.backbone(images, split.mask)[0]
        pixels = model.neck(tokens, split.restore)
    else:
        tokens = model.backbone(images, split.mask, model.mask_token)[0]
        order = torch.arange(16).repeat(4, 1)
        pixels = model.neck(tokens, order)
    expected = model.head.loss(tokens, split, teacher, pixels, images)
    out = losses_of(model, batch())
    assert set(out) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(out[key], value)


def test_every_trained_parameter_gets_a_gradient():
    for encoding in ('sparse', 'dense'):
        model = build_medic(encoding)
        loss, _ = model.parse_losses(losses_of(model, batch()))
        loss.backward()
        idle = [
            name
            for name, p in model.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        # a sparse encoder hands the decoder every mask token it needs; a dense one none
        assert idle == (['neck.mask_token'] if encoding == 'dense' else [])


def test_loss_goes_down_on_one_batch():
    model = build_medic()
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    first, last = None, None
    for _ in range(30):
        last = model.train_step(batch(), optimizer)['loss']
        first = last if first is None else first
    assert last < 0.7 * first


def test_host_and_own_preprocessor_agree():
    config = medic_config()
    ours = build_medic()
    config['data_preprocessor']['type'] = 'mmpretrain.SelfSupDataPreprocessor'
    torch.manual_seed(0)
    host = MODELS.build(config)
    host.init_weights()
    one, two = losses_of(ours, batch()), losses_of(host, batch())
    assert all(torch.equal(one[key], two[key]) for key in one)


# the teacher is out of everybody's reach


def test_teacher_survives_the_parents_initialisation_and_training():
    config = medic_config()
    config['init_cfg'] = [
        dict(type='Constant', layer='Conv2d', val=7.0),
        dict(type='Constant', layer='Linear', val=7.0),
        dict(type='Constant', layer='LayerNorm', val=7.0),
    ]
    model = MODELS.build(config)
    network = model.target_generator.network
    before = copy.deepcopy(network.state_dict())
    model.init_weights()
    assert (model.head.projection.weight == 7).all(), 'the test reaches nothing'
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    model = build_medic()
    before = model.target_generator.fingerprint()
    model.train()
    student = model.backbone.layers[0].attn.qkv.weight.clone()
    train(model)
    assert model.target_generator.fingerprint() == before
    assert not torch.equal(student, model.backbone.layers[0].attn.qkv.weight)
    assert not model.target_generator.network.training


def test_teacher_is_absent_from_checkpoint_optimizer_and_average():
    model = build_medic()
    assert not [k for k in model.state_dict() if k.startswith('target_generator')]
    optimizer = train(model, steps=1).optimizer
    held = {id(p) for p in model.target_generator.network.parameters()}
    grouped = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert held and not held & grouped
    average = ExponentialMovingAverage(model).module
    assert average.target_generator.network is model.target_generator.network
    assert average.backbone.cls_token is not model.backbone.cls_token


def test_teacher_does_not_change_the_students_first_weights():
    config = medic_config(weights=dict(token=1.0))
    torch.manual_seed(3)
    one = MODELS.build(config)
    config['target_generator']['output_grid'] = (4, 4)
    config['target_generator']['input_size'] = 64
    torch.manual_seed(3)
    two = MODELS.build(config)
    assert torch.equal(one.head.projection.weight, two.head.projection.weight)


# terms that are off cost nothing


def count_calls(module, calls, name):
    module.register_forward_hook(lambda *_: calls.append(name))


@pytest.mark.parametrize('term', ['token', 'cls', 'pixel'])
def test_a_term_that_is_off_runs_nothing(term):
    model = build_medic(weights={term: 1.0})
    calls = []
    assert (model.neck is None) == (term != 'pixel')
    assert (model.target_generator is None) == (term == 'pixel')
    if term != 'pixel':
        shapes = []
        model.head.projection.register_forward_hook(
            lambda _, inputs, out: shapes.append(tuple(inputs[0].shape))
        )
        count_calls(model.target_generator, calls, 'teacher')
        losses_of(model, batch())
        assert calls == ['teacher']
        assert shapes == ([(4, 10, 48)] if term == 'token' else [(4, 48)])
    else:
        count_calls(model.neck, calls, 'decoder')
        losses_of(model, batch())
        assert calls == ['decoder']
        assert not hasattr(model.head, 'projection')


def test_all_terms_run_each_part_once():
    model = build_medic()
    calls = []
    for name in ('target_generator', 'backbone', 'neck'):
        count_calls(getattr(model, name), calls, name)
    losses_of(model, batch())
    assert sorted(calls) == ['backbone', 'neck', 'target_generator']


# parts that do not fit


def test_features_are_those_of_the_unmasked_images():
    model = build_medic().eval()
    data = model.data_preprocessor(batch(), False)
    features = model(data['inputs'], mode='tensor')
    assert torch.equal(features[-1], model.backbone(data['inputs'])[-1])


@pytest.mark.parametrize('positions', ['masked', 'all'])
def test_refuses_tokens_that_a_sparse_encoder_never_predicts(positions):
    with pytest.raises(ValueError, match=rf"'{positions}' has no prediction"):
        build_medic(token_positions=positions)


@pytest.mark.parametrize(
    ('path', 'value', 'words'),
    [
        (('head', 'embed_dims'), 40, 'width of the backbone, 48'),
        (('head', 'target_dims'), 40, 'width of the teacher, 24'),
        (('neck', 'num_patches'), 9, 'patches of the backbone, 16'),
        (('target_generator', 'input_size'), 64, r'output_grid=\(4, 4\)'),
        (('target_generator',), None, 'needs a teacher'),
        (('neck',), None, 'needs a decoder'),
    ],
)
def test_refuses_parts_that_do_not_fit(path, value, words):
    config = medic_config()
    target = config
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        MODELS.build(config)


def test_refuses_statistics_that_are_missing():
    config = medic_config()
    del config['data_preprocessor']['mean'], config['data_preprocessor']['std']
    with pytest.raises(ValueError, match='mean and std'):
        MODELS.build(config)


def test_refuses_samples_without_a_mask():
    model, data = build_medic(), batch()
    for sample in data['data_samples']:
        del sample.mask
    with pytest.raises(ValueError, match='BlockMask, RandomMask or GridMask'):
        losses_of(model, data)


def test_teacher_of_another_grid_is_resized_when_asked():
    config = medic_config()
    config['target_generator'].update(input_size=64, output_grid=(4, 4))
    model = MODELS.build(config)
    model.init_weights()
    assert losses_of(model, batch())['loss_token'] > 0


def test_optimizer_wrapper_is_the_one_asked_for():
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(OPTIM, accumulative_counts=4, clip_grad=dict(max_norm=3.0))
    )(build_medic())
    assert type(wrapper) is OPTIM_WRAPPERS.get('OptimWrapper')
    assert wrapper._accumulative_counts == 4
    assert wrapper.clip_grad_kwargs == dict(max_norm=3.0)


# masks from attention; test_evolved_masking.py says more of them


def evolving() -> dict:
    schedule = dict(clusters=(8, 3))
    return dict(type='medic_mm.EvolvedMasking', schedule=schedule, progress=(0, 4))


def test_refuses_masks_from_two_sides():
    model = MODELS.build(dict(medic_config(), masking=evolving()))
    model.init_weights()
    with pytest.raises(ValueError, match='out of the training pipeline'):
        losses_of(model, batch())


def test_a_step_with_masks_from_attention_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    model = MODELS.build(dict(medic_config(), masking=evolving())).eval()
    model.init_weights()
    data = batch()
    for sample in data['data_samples']:
        del sample.mask
    images = model.data_preprocessor(copy.deepcopy(data), True)['inputs']
    torch.manual_seed(1)
    out = losses_of(model, data)
    torch.manual_seed(1)
    split, logs, teacher = model.mask(images, [], model.target_generator)
    tokens = model.backbone(images, split.mask)[0]
    pixels = model.neck(tokens, split.restore)
    expected = {**model.head.loss(tokens, split, teacher, pixels, images), **logs}
    assert set(out) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(out[key], value)
