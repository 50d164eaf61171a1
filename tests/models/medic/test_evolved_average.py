"""The moving average that masks are made from: it only follows, and resumes."""

from __future__ import annotations

import copy

import pytest
import torch
from evolving import OPTIM, build, losses_of, settings, train, unmasked
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS
from tiny import medic_config
from torch import nn

from medic_mm.checkpoints import convert_keys, load_backbone
from medic_mm.engine.optimizers import LayerDecayOptimWrapperConstructor
from medic_mm.models.vit.attention import summed_attention


def test_average_follows_by_hand():
    model = build(source='student_ema', momentum=0.9)
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(model)
    average = model.masking.average.module
    expected = None
    for step in range(4):
        weights = {k: v.clone() for k, v in model.backbone.named_parameters()}
        # the first step copies what training starts from, whatever was there
        for name, value in weights.items():
            before = value if expected is None else expected[name]
            weights[name] = 0.9 * before + 0.1 * value
        expected = weights
        model.train_step(unmasked(step), optimizer)
        for name, value in average.named_parameters():
            torch.testing.assert_close(value, expected[name])
            assert value.grad is None
            assert not value.requires_grad
    moved = average.cls_token - model.backbone.cls_token
    assert moved.abs().max() > 1e-3, 'the test sees no difference'


@pytest.mark.parametrize('how', [{}, {'foreach': True}, {'fused': True}])
def test_average_moves_once_per_optimizer_step(how):
    """Accumulated batches leave the weights, and so the average, alone."""
    model = build(source='student_ema', momentum=0.5)
    optim = dict(optimizer=dict(OPTIM['optimizer'], **how), accumulative_counts=3)
    steps = model.masking.average.steps
    seen = []
    optimizer = LayerDecayOptimWrapperConstructor(optim)(model)
    optimizer.initialize_count_status(model, 0, 9)
    for step in range(9):
        model.train_step(unmasked(step), optimizer)
        seen.append(int(steps))
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_average_rests_while_nothing_is_trained():
    model = build(source='student_ema')
    train(model, 2)
    before = copy.deepcopy(model.masking.average.state_dict())
    model.train()
    model.predict_pixels(**model.data_preprocessor(unmasked(), False))
    model.eval()
    losses_of(model)
    after = model.masking.average.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_average_never_trains_nor_drops():
    model = build(source='student_ema').train()
    assert not any(m.training for m in model.masking.average.modules())
    assert model.masking.training
    held = {id(p) for p in model.masking.parameters()}
    for constructor in (
        LayerDecayOptimWrapperConstructor(OPTIM),
        LayerDecayOptimWrapperConstructor(OPTIM, dict(layer_decay_rate=0.7)),
        DefaultOptimWrapperConstructor(OPTIM),
        DefaultOptimWrapperConstructor(OPTIM, dict(norm_decay_mult=0.0)),
    ):
        before = copy.deepcopy(model.masking.average.state_dict())
        optimizer = constructor(model)
        grouped = [p for g in optimizer.param_groups for p in g['params']]
        trained = [p for p in grouped if p.requires_grad]
        assert trained
        assert not {id(p) for p in trained} & held
        loss, _ = model.parse_losses(losses_of(model))
        steps = int(model.masking.average.steps)
        before = copy.deepcopy(model.masking.average.state_dict())
        optimizer.update_params(loss)
        after = model.masking.average.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert steps == int(model.masking.average.steps)


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped():
    def run(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            model.train_step(unmasked(step), optimizer)
        return model.state_dict()

    changes = dict(source='student_ema', momentum=0.7)
    whole = build(**changes)
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(whole)
    state = copy.deepcopy(run(whole, optimizer, range(3)))
    inner = copy.deepcopy(optimizer.state_dict())
    expected = run(whole, optimizer, range(3, 6))

    torch.manual_seed(77)
    resumed = MODELS.build(dict(medic_config(), masking=settings(**changes)))
    resumed.init_weights()
    resumed.load_state_dict(state)
    optimizer = LayerDecayOptimWrapperConstructor(OPTIM)(resumed)
    optimizer.load_state_dict(inner)
    found = run(resumed, optimizer, range(3, 6))
    assert any(name.startswith('masking.average.module.') for name in found)
    assert not [n for n in found if n.startswith('backbone.') and 'average' in n]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_with_an_average_gives_its_backbone_strictly(tmp_path):
    model = build(source='student_ema', momentum=0.5)
    train(model, 3)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    other = build()
    report = load_backbone(other, path)
    assert not report.missing
    assert not report.unexpected
    assert torch.equal(other.backbone.cls_token, model.backbone.cls_token)
    converted = convert_keys(model.state_dict(), 'auto', 'timm')
    assert torch.equal(converted['cls_token'], model.backbone.cls_token)
    assert not [name for name in converted if 'average' in name]


def test_only_the_average_is_in_the_state():
    for source in ('teacher', 'student_online'):
        model = build(source=source)
        assert not [n for n in model.state_dict() if n.startswith('masking')]


def test_a_checkpoint_without_an_average_starts_one_from_its_weights():
    plain = build()
    torch.manual_seed(9)
    model = build(source='student_ema')
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.load_state_dict(plain.state_dict(), strict=False)
    images = model.data_preprocessor(unmasked(), False)['inputs']
    # before a first step, pictures too are of the weights loaded
    network = model.masking._network(model.backbone)
    torch.testing.assert_close(
        summed_attention(network, images), summed_attention(plain.backbone, images)
    )
    losses_of(model.train())
    for name, value in model.masking.average.module.named_parameters():
        assert torch.equal(value, model.backbone.get_parameter(name))
