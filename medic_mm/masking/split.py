"""From a mask to the index tensors that gather and scatter tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medic_mm.errors import UserError


@dataclass(frozen=True)
class PatchSplit:
    """Which patches of a batch are visible and which are hidden.

    Attributes:
        mask: bool ``(B, L)``, True = hidden.
        visible: long ``(B, V)``, indices of visible patches in row-major order.
        hidden: long ``(B, M)``, indices of hidden patches in row-major order.
        restore: long ``(B, L)``: ``cat([visible, hidden])`` gathered at ``restore``
            is back in row-major order (the ``ids_restore`` of MAE).
    """

    mask: Tensor
    visible: Tensor
    hidden: Tensor
    restore: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor, num_masked: int | None = None) -> PatchSplit:
        """Split by a mask that hides the same number of patches in every image.

        Args:
            mask: bool ``(B, L)``, True = hidden.
            num_masked: Hidden patches per image. Without it the count is read from
                the mask, which waits for the device.
        """
        if num_masked is None:
            num_masked = int(mask[0].sum())
        length = mask.shape[1]
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        visible, hidden = order.split([length - num_masked, num_masked], dim=1)
        places = torch.arange(length, device=mask.device).expand_as(order)
        restore = torch.empty_like(order).scatter_(1, order, places)
        return cls(mask, visible, hidden, restore)

    @classmethod
    def from_samples(cls, masks: list[Tensor], device: torch.device) -> PatchSplit:
        """Split by the masks of single images as the data pipeline makes them.

        Args:
            masks: One bool tensor per image, ``(gh, gw)``, best still on the CPU: then
                the counts are checked without waiting for the device.
            device: Where the index tensors go.

        Raises:
            UserError: where the images hide different numbers of patches.
        """
        mask = torch.stack(masks).flatten(1).bool()  # (B, gh, gw) -> (B, L)
        counts = mask.sum(1).tolist()
        if min(counts) != max(counts):
            raise UserError(
                'every image of a batch must hide the same number of patches, but '
                f'the masks hide between {min(counts)} and {max(counts)}'
            )
        return cls.from_mask(mask.to(device, non_blocking=True), counts[0])


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index: ``(B, L, D)`` at ``(B, V)`` -> ``(B, V, D)``."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
