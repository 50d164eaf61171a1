"""Classes of data sets and masks against the head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import PixelData

from medic_mm.engine.hooks import SegmentationLabelsHook

mmseg = pytest.importorskip('mmseg')


def runner(classes: int = 3, in_data: int = 3) -> SimpleNamespace:
    head = SimpleNamespace(num_classes=classes, ignore_index=255)
    dataset = SimpleNamespace(metainfo=dict(classes=tuple('abcdefgh'[:in_data])))
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        model=SimpleNamespace(decode_head=head),
        train_dataloader=loader,
        val_loop=SimpleNamespace(dataloader=loader),
        test_dataloader=loader,
    )


def data_batch(*values: int) -> dict:
    from mmseg.structures import SegDataSample

    samples = []
    for name, value in zip('xy', (0, *values), strict=False):
        sample = SegDataSample(metainfo=dict(seg_map_path=f'{name}.png'))
        mask = torch.zeros(1, 4, 4, dtype=torch.int64)
        mask[0, 1, 2] = value
        sample.gt_sem_seg = PixelData(data=mask)
        samples.append(sample)
    return dict(inputs=[], data_samples=samples)


@pytest.mark.parametrize('moment', ['train', 'val', 'test'])
def test_masks_within_the_head_pass_and_others_do_not(moment):
    look = getattr(SegmentationLabelsHook(), f'before_{moment}_iter')
    look(runner(), 0, data_batch(2))
    look(runner(), 0, data_batch(255))
    with pytest.raises(ValueError, match=r'mask y\.png holds class 3 .*num_classes=3'):
        look(runner(), 0, data_batch(3))
    with pytest.raises(ValueError, match='holds class -1'):
        look(runner(), 0, data_batch(-1))


@pytest.mark.parametrize('moment', ['train', 'test'])
def test_numbers_of_classes(moment):
    look = getattr(SegmentationLabelsHook(), f'before_{moment}')
    look(runner())
    with pytest.raises(ValueError, match=r'has 5 classes but .* has num_classes=3'):
        look(runner(in_data=5))


def test_names_of_classes_are_compared():
    given = runner()
    data = SimpleNamespace(metainfo=dict(classes=('a', 'c', 'b')))
    given.val_loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
    with pytest.raises(ValueError, match='b is number 1 in train and 2 in validation'):
        SegmentationLabelsHook().before_train(given)
    data.metainfo['classes'] = ('a', 'b', 'd')
    with pytest.raises(ValueError, match='c only in train, d only in validation'):
        SegmentationLabelsHook().before_train(given)


def test_the_auxiliary_head_is_compared_too():
    given = runner()
    given.model.auxiliary_head = SimpleNamespace(num_classes=4)
    with pytest.raises(ValueError, match=r'set model\.auxiliary_head\.num_classes=3'):
        SegmentationLabelsHook().before_train(given)
