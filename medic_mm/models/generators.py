"""Which generator draws on which device."""

from __future__ import annotations

import torch
from torch import Generator


def global_generator(device: torch.device) -> Generator | None:
    """The global generator of a CUDA device; None, the device's own, for any other."""
    if device.type != 'cuda':
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
