"""Masks as pure functions on tensors: bool ``(B, L)``, True = hidden.

``basic`` draws them, ``split`` turns them into index tensors. Needs torch and numpy
alone; the transforms of :mod:`medic_mm.datasets.transforms` are thin wrappers.
"""

from medic_mm.masking.basic import block_mask, grid_mask, random_mask
from medic_mm.masking.split import PatchSplit, gather_tokens

__all__ = ['PatchSplit', 'block_mask', 'gather_tokens', 'grid_mask', 'random_mask']
