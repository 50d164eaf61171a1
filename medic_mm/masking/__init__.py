"""Masks as pure functions on tensors: bool ``(B, L)``, True = hidden.

``basic`` draws them. ``evolved`` draws them from attention, whose parts
``clustering_em`` and ``clustering_hierarchical`` find, and schedules how much parts
count at an epoch; ``coherence`` measures the parts. ``split`` turns masks into index
tensors. Needs torch and numpy alone; the transforms of
:mod:`medic_mm.datasets.transforms` are thin wrappers.
"""

from medic_mm.masking.basic import block_mask, grid_mask, masked_count, random_mask
from medic_mm.masking.clustering_em import cluster_em
from medic_mm.masking.clustering_hierarchical import cluster_hierarchical
from medic_mm.masking.coherence import SpatialCoherence, spatial_coherence
from medic_mm.masking.evolved import (
    evolved_alpha,
    evolved_mask,
    evolved_num_clusters,
)
from medic_mm.masking.split import PatchSplit, gather_tokens

__all__ = [
    'PatchSplit',
    'SpatialCoherence',
    'block_mask',
    'cluster_em',
    'cluster_hierarchical',
    'evolved_alpha',
    'evolved_mask',
    'evolved_num_clusters',
    'gather_tokens',
    'grid_mask',
    'masked_count',
    'random_mask',
    'spatial_coherence',
]
