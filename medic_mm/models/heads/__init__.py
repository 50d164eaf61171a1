"""Heads own targets and loss terms."""

from medic_mm.models.heads.medic_head import MEDiCHead

__all__ = ['MEDiCHead']
