"""Whatever is drawn inside changes nothing outside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from medic_mm.randomness import preserved_randomness


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def seed() -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)


@pytest.mark.parametrize('fails', [False, True])
def test_generators_are_restored(fails: bool) -> None:
    seed()
    expected = draw()
    seed()
    try:
        with preserved_randomness():
            assert draw() == expected
            assert draw() != expected
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert draw() == expected


class FakeDevices:
    """Stands for ``torch.cuda`` in a process whose own device is the second of two."""

    def __init__(self) -> None:
        self.states = [torch.tensor([10]), torch.tensor([20])]

    def current_device(self) -> int:
        return 1

    def get_rng_state(self, device: int) -> torch.Tensor:
        return self.states[device]

    def set_rng_state(self, state: torch.Tensor, device: int) -> None:
        self.states[device] = state


@pytest.mark.parametrize(('device', 'own'), [('cuda', 1), ('cuda:1', 1), ('cuda:0', 0)])
def test_the_generator_of_the_ranks_own_device_is_restored(monkeypatch, device, own):
    devices = FakeDevices()
    for name in ('current_device', 'get_rng_state', 'set_rng_state'):
        monkeypatch.setattr(torch.cuda, name, getattr(devices, name))
    with preserved_randomness(device):
        devices.states = [torch.tensor([11]), torch.tensor([21])]
    expected = [11, 21]
    expected[own] -= 1
    assert [int(state) for state in devices.states] == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_generator_is_restored() -> None:
    torch.cuda.manual_seed(0)
    expected = torch.rand(3, device='cuda')
    torch.cuda.manual_seed(0)
    with preserved_randomness('cuda'):
        torch.rand(5, device='cuda')
    assert torch.equal(torch.rand(3, device='cuda'), expected)
