"""Fewer images than a batch: one sentence, and its advice works."""

from __future__ import annotations

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from medic_mm.errors import UserError
from medic_mm.evaluation import loaders
from medic_mm.evaluation.loaders import require_batches


def loader(total, **settings):
    data = list(range(total))
    return DataLoader(
        data, **{'batch_size': 8, 'sampler': DefaultSampler(data), **settings}
    )


def test_enough_images_pass():
    require_batches(loader(8, drop_last=True))
    require_batches(loader(3))
    data = list(range(3))
    require_batches(loader(3, drop_last=True, sampler=InfiniteSampler(data)))


def test_fewer_than_a_batch():
    with pytest.raises(UserError) as error:
        require_batches(loader(5, drop_last=True))
    assert str(error.value) == (
        'train_dataloader has 5 images, fewer than its batch_size=8, and '
        'drop_last=True leaves out what does not fill a batch: set '
        'train_dataloader.batch_size=5 or less, or train_dataloader.drop_last=False'
    )
    require_batches(loader(5, drop_last=True, batch_size=5))
    require_batches(loader(5, drop_last=False))


def test_processes_share_the_images(monkeypatch):
    monkeypatch.setattr(loaders, 'get_world_size', lambda: 4)
    sampler = DefaultSampler(list(range(20)))
    sampler.num_samples = 5
    with pytest.raises(UserError, match=r'20 images \(5 for each of 4 processes\), f'):
        require_batches(loader(20, drop_last=True, sampler=sampler))


def test_no_images():
    with pytest.raises(UserError, match='val_dataloader has no images'):
        require_batches(loader(0), 'val_dataloader')
