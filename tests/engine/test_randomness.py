"""Whatever is drawn inside changes nothing outside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from medic_mm.engine.randomness import preserved_randomness


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_generator_is_restored() -> None:
    torch.cuda.manual_seed(0)
    expected = torch.rand(3, device='cuda')
    torch.cuda.manual_seed(0)
    with preserved_randomness('cuda'):
        torch.rand(5, device='cuda')
    assert torch.equal(torch.rand(3, device='cuda'), expected)
