"""What every teacher promises, shown with both kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from small_towers import (
    MEAN,
    STD,
    VIT,
    VIT_KWARGS,
    clip_config,
    images,
    normalised,
    save,
    small_clip,
    small_vit,
)
from torch import Tensor, nn

from medic_mm.models.teachers import FrozenTeacher
from medic_mm.registry import MODELS

Make = Callable[..., FrozenTeacher]
ENTRY = {'OpenCLIPTeacher': 'conv1', 'TimmTeacher': 'patch_embed.proj'}


@pytest.fixture(scope='module', params=['OpenCLIPTeacher', 'TimmTeacher'])
def make(request, tmp_path_factory) -> Make:
    """Builds a teacher of one kind from its config, with weights from a file."""
    folder: Path = tmp_path_factory.mktemp('weights')
    if request.param == 'OpenCLIPTeacher':
        weights = save(small_clip(), folder / 'w.safetensors')
        defaults = dict(model=clip_config())
    else:
        weights = save(small_vit(), folder / 'w.safetensors')
        defaults = dict(model=VIT, model_kwargs=VIT_KWARGS, input_size=32)

    def build(**settings) -> FrozenTeacher:
        config = {**defaults, 'weights': weights, **settings}
        return MODELS.build(dict(type=f'medic_mm.{request.param}', **config))

    return build


def ready(teacher: FrozenTeacher) -> FrozenTeacher:
    teacher.init_weights()
    return teacher


def network_input(teacher: FrozenTeacher, batch: Tensor) -> Tensor:
    """What the first layer of the network is given for a batch of the student."""
    seen = []
    entry = teacher.network.get_submodule(ENTRY[type(teacher).__name__])
    hook = entry.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    teacher(batch, MEAN, STD)
    hook.remove()
    return seen[0]


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(v.equal(before[k]) for k, v in network.state_dict().items())


class Parent(BaseModule):
    """A model that would reset all its linear and norm layers."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__(
            init_cfg=[
                dict(type='Constant', layer=['Linear', 'LayerNorm'], val=7.0),
                dict(type='Constant', layer='Conv2d', val=7.0),
            ]
        )
        self.student = nn.Linear(4, 4)
        self.target_generator = teacher


class TestInput:
    """The network gets what it was trained with."""

    def test_own_statistics(self, make):
        teacher = ready(make())
        raw, batch = images()
        own = teacher._mean.flatten().tolist(), teacher._std.flatten().tolist()
        expected = normalised(raw, *own)
        torch.testing.assert_close(
            network_input(teacher, batch), expected, atol=1e-5, rtol=1e-5
        )

    def test_the_students_statistics_on_request(self, make):
        batch = images()[1]
        assert network_input(ready(make(input_norm='student')), batch).equal(batch)

    def test_other_sizes_are_resized(self, make):
        batch = images(size=40)[1]
        expected = F.interpolate(batch, (32, 32), mode='bicubic', antialias=True)
        given = network_input(ready(make(input_norm='student')), batch)
        assert given.equal(expected)

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (dict(input_norm='imagenet'), "input_norm='imagenet'"),
            (dict(input_size=36), 'not a multiple of its patch size 8.* 32 and 40'),
            (dict(layer=3), r'layer=3 is out of range.*3 blocks.*0 to 2'),
            (dict(layer=-4), r'layer=-4 is out of range'),
        ],
    )
    def test_bad_settings_are_refused(self, make, settings, message):
        with pytest.raises(ValueError, match=message):
            make(**settings)


class TestOutput:
    """Grids, precision, and no gradients."""

    def test_patch_tokens_on_another_grid(self, make):
        batch = images()[1]
        native = ready(make())(batch, MEAN, STD)
        teacher = ready(make(output_grid=(2, 3)))
        out = teacher(batch, MEAN, STD)
        maps = native.patch_tokens.transpose(1, 2).unflatten(2, (4, 4))
        maps = F.interpolate(maps, (2, 3), mode='bilinear', align_corners=False)
        assert teacher.grid == (2, 3) and teacher.native_grid == (4, 4)
        torch.testing.assert_close(out.patch_tokens, maps.flatten(2).transpose(1, 2))
        assert out.cls_token.equal(native.cls_token)
        with pytest.raises(ValueError, match=r'output_grid=\(2, 3\)'):
            teacher(batch, MEAN, STD, attention=True)

    def test_no_gradient_flows(self, make):
        batch = images()[1].requires_grad_()
        out = ready(make())(batch, MEAN, STD, attention=True)
        for tokens in (out.patch_tokens, out.cls_token, out.attention):
            assert not tokens.requires_grad

    def test_it_computes_in_the_autocast_dtype(self, make):
        teacher, batch = ready(make()), images()[1]
        dtypes = []
        for module in teacher.network.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(
                    lambda _, args, out: dtypes.append(out.dtype)
                )
        full = teacher(batch, MEAN, STD, attention=True)
        assert set(dtypes) == {torch.float32}
        dtypes.clear()
        with torch.autocast('cpu', torch.bfloat16):
            half = teacher(batch, MEAN, STD, attention=True)
        assert set(dtypes) == {torch.bfloat16}
        for name in ('patch_tokens', 'cls_token'):
            pair = [getattr(out, name).float().flatten() for out in (full, half)]
            assert F.cosine_similarity(*pair, dim=0) > 0.99
        torch.testing.assert_close(
            half.attention.float(), full.attention, atol=0.1, rtol=0.1
        )


class TestFrozen:
    """Nothing that a training run does reaches the network."""

    def test_a_parents_initialisation(self, make):
        model = Parent(make())
        model.init_weights()
        assert model.student.weight.eq(7).all()
        reference = ready(make()).network
        assert unchanged(model.target_generator.network, snapshot(reference))

    def test_train_and_gradients(self, make):
        model = Parent(ready(make()))
        model.train()
        modules = list(model.target_generator.network.modules())
        assert modules and not any(module.training for module in modules)
        parameters = list(model.target_generator.network.parameters())
        assert not any(value.requires_grad for value in parameters)

    def test_absent_from_state_parameters_and_optimizer(self, make):
        model = Parent(ready(make()))
        names = {'student.weight', 'student.bias'}
        assert set(model.state_dict()) == names
        assert {name for name, _ in model.named_parameters()} == names
        wrapper = build_optim_wrapper(
            model, dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5))
        )
        before = snapshot(model.target_generator.network)
        out = model.target_generator(images()[1], MEAN, STD)
        wrapper.update_params(model.student(out.cls_token[:, :4]).sum())
        groups = wrapper.optimizer.param_groups
        assert sum(len(group['params']) for group in groups) == 2
        assert unchanged(model.target_generator.network, before)

    def test_copies_share_the_network(self, make):
        model = Parent(ready(make()))
        network = model.target_generator.network
        before = snapshot(network)
        twin = copy.deepcopy(model)
        assert twin.student.weight is not model.student.weight
        assert twin.target_generator.network is network
        average = ExponentialMovingAverage(model, momentum=0.5)
        with torch.no_grad():
            model.student.weight.add_(1)
        average.update_parameters(model)
        assert average.module.target_generator.network is network
        assert set(average.module.state_dict()) == {'student.weight', 'student.bias'}
        assert unchanged(network, before)

    def test_a_checkpoint_goes_back_strictly(self, make, tmp_path):
        model = Parent(ready(make()))
        torch.save(model.state_dict(), tmp_path / 'last.pth')
        again = Parent(make())
        again.load_state_dict(torch.load(tmp_path / 'last.pth'), strict=True)


class TestWeights:
    """A teacher has its weights, or says so."""

    def test_nothing_works_before_init_weights(self, make):
        teacher = make()
        with pytest.raises(RuntimeError, match='call init_weights'):
            teacher(images()[1], MEAN, STD)
        with pytest.raises(RuntimeError, match='call init_weights'):
            teacher.fingerprint()

    def test_random_weights_are_alike_and_leave_generators_alone(
        self, make, monkeypatch
    ):
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        for device in (torch.cuda, torch.mps, torch.xpu):
            name = 'manual_seed' if device is torch.mps else 'manual_seed_all'
            monkeypatch.setattr(device, name, lambda seed: pytest.fail('seeded'))
        first = make(random_weights=True, weights=None)
        monkeypatch.undo()
        assert torch.rand(4).equal(expected)
        torch.manual_seed(99)
        second = make(random_weights=True, weights='not/read.pth')
        assert unchanged(second.network, snapshot(first.network))
        batch = images()[1]
        tokens = [ready(t)(batch, MEAN, STD).patch_tokens for t in (first, second)]
        assert tokens[0].equal(tokens[1])

    def test_fingerprint_tells_what_changes_the_output(self, make):
        settings = [
            dict(),
            dict(layer=0),
            dict(norm=True),
            dict(input_size=40),
            dict(input_norm='student'),
            dict(output_grid=(2, 2)),
            dict(random_weights=True),
        ]
        prints = [ready(make(**setting)).fingerprint() for setting in settings]
        assert len(set(prints)) == len(settings)
        assert ready(make(layer=-1)).fingerprint() == prints[0]
        teacher = ready(make())
        with torch.no_grad():
            next(teacher.network.parameters()).view(-1)[0] += 1e-6
        assert teacher.fingerprint() != prints[0]
