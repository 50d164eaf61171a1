"""Pictures of training runs and of what models make of images."""

from medic_mm.visualization.curves import Curve, draw_curves, read_curves
from medic_mm.visualization.reconstruction import (
    NORMALISED_NOTE,
    Reconstruction,
    draw_reconstruction,
    reconstruct,
    restore_patches,
)

__all__ = [
    'Curve',
    'NORMALISED_NOTE',
    'Reconstruction',
    'draw_curves',
    'draw_reconstruction',
    'read_curves',
    'reconstruct',
    'restore_patches',
]
