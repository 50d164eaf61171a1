"""Reading checkpoints and moving weights between layouts."""

from medic_mm.checkpoints.backbone import LoadReport, load_backbone
from medic_mm.checkpoints.key_maps import convert_keys, detect_layout
from medic_mm.checkpoints.loading import read_checkpoint, read_state_dict

__all__ = [
    'LoadReport',
    'convert_keys',
    'detect_layout',
    'load_backbone',
    'read_checkpoint',
    'read_state_dict',
]
