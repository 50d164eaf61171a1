"""Random generators that a look at the model must leave as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def preserved_randomness(device: torch.device | str = 'cpu') -> Iterator[None]:
    """Restore the generators of python, numpy and torch on leaving.

    Whatever draws inside (building samplers, iterating data loaders, transforms,
    dropout) does not change what is drawn afterwards.

    Args:
        device: Its generator is restored besides the CPU's.
    """
    device = torch.device(device)
    # hosts and transforms draw from numpy's global generator
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    # MPS has one generator without a device index, which fork_rng cannot address
    on_device = device.type not in ('cpu', 'mps')
    fork = (
        torch.random.fork_rng([device.index or 0], device_type=device.type)
        if on_device
        else torch.random.fork_rng(devices=[])
    )
    try:
        with fork:
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
