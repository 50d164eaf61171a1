"""What a look at the model must leave as it was: random generators, and modes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, nn


@contextlib.contextmanager
def preserved_randomness(device: torch.device | str = 'cpu') -> Iterator[None]:
    """Restore the generators of python, numpy and torch on leaving.

    Whatever draws inside (building samplers, iterating data loaders, transforms,
    dropout) does not change what is drawn afterwards.

    Args:
        device: Its generator is restored as well as the CPU's. Without an index it is
            the process's own device (every rank of a distributed run has another).
    """
    device = torch.device(device)
    # hosts and transforms draw from numpy's global generator
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    # MPS has one generator without a device index, which fork_rng cannot address
    if device.type in ('cpu', 'mps'):
        fork = torch.random.fork_rng(devices=[])
    else:
        index = device.index
        if index is None:
            index = getattr(torch, device.type).current_device()
        fork = torch.random.fork_rng([index], device_type=device.type)
    try:
        with fork:
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def seeded_construction(seed: int = 0) -> Iterator[None]:
    """Build a network from its own seed and leave the global generator as it was.

    So a random teacher is the same on all ranks, and the student's initial weights do
    not depend on the teacher. Networks are built on the CPU, so its
    generator alone is seeded (``torch.manual_seed`` would seed the accelerator's too,
    and alike on all ranks).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def eval_mode(module: nn.Module | None) -> Iterator[None]:
    """Eval mode inside; afterwards each module has the mode that it had."""
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    try:
        if module is not None:
            module.eval()
        yield
    finally:
        for part, training in modes:
            # train() may be overridden and touch children: set the flag alone
            part.training = training


def global_generator(device: torch.device) -> Generator | None:
    """The global generator of a CUDA device; None, the device's own, for any other."""
    if device.type != 'cuda':
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
