"""One file a paper; an algorithm only routes."""

from medic_mm.models.algorithms.medic import MEDiC
from medic_mm.models.algorithms.mimhd import MIMHD

__all__ = ['MEDiC', 'MIMHD']
