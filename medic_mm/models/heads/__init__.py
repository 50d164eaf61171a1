"""Heads own targets and loss terms."""

from medic_mm.models.heads.layer_probe_head import LayerProbeHead
from medic_mm.models.heads.medic_head import MEDiCHead
from medic_mm.models.heads.mimhd_head import MIMHDHead

__all__ = ['LayerProbeHead', 'MEDiCHead', 'MIMHDHead']
