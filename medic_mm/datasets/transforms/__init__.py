"""Transforms of the data pipeline; importing this package registers them."""

from medic_mm.datasets.transforms.fixed_view import FixedView
from medic_mm.datasets.transforms.loading import LoadReadableImage
from medic_mm.datasets.transforms.masks import (
    BlockMask,
    GridMask,
    MaskTransform,
    RandomMask,
)

__all__ = [
    'BlockMask',
    'FixedView',
    'GridMask',
    'LoadReadableImage',
    'MaskTransform',
    'RandomMask',
]
