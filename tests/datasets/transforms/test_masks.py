"""Mask transforms: the count they hide, their randomness, and what they refuse."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

from medic_mm.masking import block_mask


def build(name: str, **kwargs):
    return TRANSFORMS.build(dict(type=f'medic_mm.{name}', **kwargs))


@pytest.mark.parametrize(
    ('name', 'kwargs', 'hidden'),
    [
        ('BlockMask', dict(grid=14), 78),
        ('BlockMask', dict(grid=14, mask_ratio=0.75), 147),
        ('RandomMask', dict(grid=(8, 8)), 25),
        ('RandomMask', dict(grid=10, mask_ratio=0.29), 29),
        ('RandomMask', dict(grid=(3, 5), num_masked=7), 7),
        ('GridMask', dict(grid=14), 147),
    ],
)
def test_hides_what_the_settings_say(name, kwargs, hidden):
    results = build(name, **kwargs)({'img': 'kept'})
    grid = kwargs['grid']
    assert results['img'] == 'kept'
    assert results['mask'].dtype == np.bool_
    assert results['mask'].shape == ((grid, grid) if isinstance(grid, int) else grid)
    assert results['mask'].sum() == hidden


def test_block_mask_passes_its_settings_on():
    transform = build('BlockMask', grid=14, min_area=30, min_aspect=0.9)
    torch.manual_seed(3)
    mask = transform({})['mask']
    torch.manual_seed(3)
    expected = block_mask(1, (14, 14), 78, min_area=30, min_aspect=0.9)
    assert np.array_equal(mask.reshape(1, -1), expected.numpy())


@pytest.mark.parametrize('name', ['BlockMask', 'RandomMask', 'GridMask'])
@pytest.mark.parametrize('kwargs', [dict(mask_ratio=0.0), dict(num_masked=196)])
def test_refuses_to_hide_nothing_or_everything(name, kwargs):
    with pytest.raises(ValueError, match=f'{name} would hide .* at most 195'):
        build(name, grid=14, **kwargs)
