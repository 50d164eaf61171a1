"""Reading checkpoints and moving weights between layouts."""

from medic_mm.checkpoints.backbone import LoadReport, load_backbone
from medic_mm.checkpoints.conversion import (
    Conversion,
    convert_keys,
    convert_weights,
    fold_layer_scale,
)
from medic_mm.checkpoints.layouts import detect_layout
from medic_mm.checkpoints.reading import read_checkpoint, read_state_dict
from medic_mm.checkpoints.sizes import resize_weights

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
