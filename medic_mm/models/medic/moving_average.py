"""A moving average of a network that no training step has to wait for."""

from __future__ import annotations

import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn


class MovingAverage(ExponentialMovingAverage):
    """The host's, but for how it is told and what it asks.

    The host's reads its counter from the device at each update, so that the step waits
    there. This one decides on the device. ``interval`` and ``update_buffers`` are as
    the host sets them without being told: each call counts, buffers are copied.
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, moved: Tensor | None = None) -> None:
        """Move towards a network; the first time, become its copy.

        Args:
            model: Of the same kind as the averaged one.
            moved: bool ``()`` on the device: whether there is anything to do. Default:
                there is.
        """
        if moved is None:
            moved = torch.ones_like(self.steps, dtype=torch.bool)
        rate = torch.where(self.steps == 0, 1.0, self.momentum * moved)
        for ours, theirs in zip(
            self.module.parameters(), model.parameters(), strict=True
        ):
            ours.lerp_(theirs, rate.to(ours.dtype))
        for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
        self.steps += moved
