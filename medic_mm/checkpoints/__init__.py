"""Reading checkpoints and moving weights between layouts."""

from medic_mm.checkpoints.backbone import LoadReport, load_backbone
from medic_mm.checkpoints.key_maps import (
    Conversion,
    convert_keys,
    convert_weights,
    detect_layout,
)
from medic_mm.checkpoints.layer_scale import fold_layer_scale
from medic_mm.checkpoints.loading import read_checkpoint, read_state_dict
from medic_mm.checkpoints.resize import resize_weights

__all__ = [
    'Conversion',
    'LoadReport',
    'convert_keys',
    'convert_weights',
    'detect_layout',
    'fold_layer_scale',
    'load_backbone',
    'read_checkpoint',
    'read_state_dict',
    'resize_weights',
]
