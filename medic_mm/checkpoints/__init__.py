"""Reading checkpoints and moving weights between layouts."""

from medic_mm.checkpoints.backbone import LoadReport, load_backbone
from medic_mm.checkpoints.loading import read_checkpoint, read_state_dict

__all__ = ['LoadReport', 'load_backbone', 'read_checkpoint', 'read_state_dict']
