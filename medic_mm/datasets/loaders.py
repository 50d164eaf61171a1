"""Whether a data loader gives a batch at all."""

from __future__ import annotations

from collections.abc import Sized
from typing import cast

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader

from medic_mm.errors import UserError


def require_batches(loader: DataLoader, name: str = 'train_dataloader') -> None:
    """Refuse a loader whose images do not fill one batch.

    Args:
        loader: Of training, validation or test.
        name: Its key in the config.

    Raises:
        UserError: it names the images, the batch size and ``drop_last``.
    """
    total = len(cast(Sized, loader.dataset))
    if total == 0:
        raise UserError(f'{name} has no images')
    if isinstance(loader.sampler, InfiniteSampler) or len(loader) > 0:
        return
    share, processes = len(cast(Sized, loader.sampler)), get_world_size()
    each = f' ({share} for each of {processes} processes)' if processes > 1 else ''
    raise UserError(
        f'{name} has {total} images{each}, fewer than its batch_size='
        f'{loader.batch_size}, and drop_last=True leaves out what does not fill a '
        f'batch: set {name}.batch_size={share} or less, or {name}.drop_last=False'
    )
