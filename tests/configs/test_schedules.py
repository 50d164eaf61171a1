"""Learning rates of the shipped schedules, group by group, against BEiT-2's formula."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import scheduler as host

ROOT = Path(__file__).resolve().parents[2] / 'configs'
#: Of every file that sets a schedule or a decay by layer itself, or inherits one.
SCHEDULES = {
    path.stem: Config.fromfile(path)
    for path in sorted(ROOT.rglob('*.py'))
    if 'schedules' in path.parts
    or {'param_scheduler', 'layer_decay_rate'}
    & set(re.findall(r'\w+', path.read_text()))
}
#: What the released scripts end at, whatever the peak.
LAST = 1e-6
STEPS = 20  # of an epoch


def scales(rate: float, layers: int = 14) -> list[float]:
    return [rate ** (layers - 1 - layer) for layer in range(layers)]


def decay_of(cfg: Config) -> float:
    settings = cfg.get('optim_wrapper', {}).get('paramwise_cfg') or {}
    return settings.get('layer_decay_rate', 1.0)


DECAYED = [name for name, cfg in SCHEDULES.items() if decay_of(cfg) < 1]
FINE_TUNING = [name for name in DECAYED if name.startswith('finetune')]


def rates_of(cfg: Config, epochs: int) -> torch.Tensor:
    """``(steps, groups)``, from the schedulers as the runner builds them."""
    peak = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD(
        [
            dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=peak * scale)
            for scale in scales(decay_of(cfg))
        ]
    )
    schedulers = []
    for settings in cfg.param_scheduler:
        settings = dict(settings)
        kind = getattr(host, settings.pop('type'))
        assert settings.pop('convert_to_iter_based')
        schedulers.append(
            kind.build_iter_from_epoch(optimizer, epoch_length=STEPS, **settings)
        )
    found = []
    for _ in range(epochs * STEPS):
        found.append([group['lr'] for group in optimizer.param_groups])
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(found, dtype=torch.float64)


def beits(peak: float, last: float, epochs: int, warm_up: int) -> list[float]:
    """BEiT-2's schedule, a rate for each step, before the layer's scale."""
    start, total = warm_up * STEPS, epochs * STEPS
    return [
        peak * step / (start - 1)
        if step < start
        else last
        + (peak - last) * (1 + math.cos(math.pi * (step - start) / (total - start))) / 2
        for step in range(total)
    ]


@pytest.mark.parametrize('name', FINE_TUNING)
def test_every_layer_has_beits_rate(name):
    cfg = SCHEDULES[name]
    epochs, warm_up = cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end
    rates = rates_of(cfg, epochs)
    peak = cfg.optim_wrapper.optimizer.lr
    expected = torch.tensor(beits(peak, LAST, epochs, warm_up), dtype=torch.float64)
    expected = expected[:, None] * torch.tensor(scales(decay_of(cfg)))
    # after warm-up, whose first step is not 0 here
    after = warm_up * STEPS
    torch.testing.assert_close(rates[after:], expected[after:], rtol=1e-6, atol=0)
    torch.testing.assert_close(rates.mean(0), expected.mean(0), rtol=2e-3, atol=0)


def test_the_schedules_with_layer_decay_are_found():
    assert len(FINE_TUNING) == 4
    assert len(DECAYED) == 7


@pytest.mark.parametrize('name', DECAYED)
def test_no_schedule_with_layer_decay_has_one_least_rate_for_all_groups(name):
    floors = [s.get('eta_min', 0) for s in SCHEDULES[name].param_scheduler]
    assert set(floors) == {0}
