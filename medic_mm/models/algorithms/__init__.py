"""One file a paper; an algorithm only routes."""

from medic_mm.models.algorithms.medic import MEDiC

__all__ = ['MEDiC']
