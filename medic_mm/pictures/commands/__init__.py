"""Pictures of what models make of images, as ``tools/visualize.py`` draws them."""

from medic_mm.pictures.commands.attention import visualize_attention
from medic_mm.pictures.commands.evolution import visualize_evolution
from medic_mm.pictures.commands.features import visualize_features
from medic_mm.pictures.commands.masks import visualize_masks
from medic_mm.pictures.commands.reconstruction import visualize_reconstruction
from medic_mm.pictures.commands.segmentation import visualize_segmentation
from medic_mm.pictures.common import Drawn
from medic_mm.pictures.curves import visualize_curves

__all__ = [
    'Drawn',
    'visualize_attention',
    'visualize_curves',
    'visualize_evolution',
    'visualize_features',
    'visualize_masks',
    'visualize_reconstruction',
    'visualize_segmentation',
]
