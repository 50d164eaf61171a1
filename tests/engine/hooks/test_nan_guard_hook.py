from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

from medic_mm.engine.hooks.nan_guard_hook import StopOnNaNHook


class Diverging(BaseModel):
    """Its loss (or only its gradient) is NaN at one call."""

    def __init__(self, at: int, only_gradient: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.at, self.only_gradient, self.calls = at, only_gradient, 0

    def forward(self, inputs: list, mode: str = 'tensor') -> dict:
        self.calls += 1
        loss = self.weight * 1.0
        if self.calls == self.at and self.only_gradient:
            loss.register_hook(lambda gradient: gradient * float('nan'))
        elif self.calls == self.at:
            loss = loss * float('nan')
        return {'loss_token': loss, 'std_cls': torch.ones(())}


def build_runner(work_dir: Path, model: Diverging, interval: int, **wrapper) -> Runner:
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=[dict(inputs=torch.ones(1))] * 4,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **wrapper),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='medic_mm.StopOnNaNHook', interval=interval)],
        experiment_name=f'{work_dir.name}_{os.urandom(4).hex()}',
    )


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


def test_stops_at_the_next_look(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, Diverging(at=1), interval=3)
    with pytest.raises(
        FloatingPointError, match='iteration 3, loss=nan, loss_token=nan'
    ):
        runner.train()
    assert runner.iter == 2
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('only_gradient', [False, True])
def test_broken_weights_are_not_saved(tmp_path: Path, only_gradient: bool) -> None:
    model = Diverging(at=6, only_gradient=only_gradient)
    with pytest.raises(FloatingPointError, match='iteration 8, weight has NaN'):
        build_runner(tmp_path, model, interval=100).train()
    assert checkpoints(tmp_path) == ['epoch_1.pth']
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert torch.isfinite(saved['state_dict']['weight'])


def test_the_documented_clipping_keeps_a_bad_step_from_the_weights(
    tmp_path: Path,
) -> None:
    model = Diverging(at=3, only_gradient=True)
    clip = dict(max_norm=5.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError, match='non-finite'):
        build_runner(tmp_path, model, interval=100, clip_grad=clip).train()
    # two good steps of gradient 1
    assert model.weight.item() == pytest.approx(1 - 2 * 0.1)


def test_healthy_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    model = Diverging(at=0)
    build_runner(tmp_path, model, interval=1).train()
    assert model.weight.item() == pytest.approx(1 - 8 * 0.1)
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']


def test_interval_is_checked() -> None:
    with pytest.raises(ValueError, match='interval=0'):
        StopOnNaNHook(interval=0)
