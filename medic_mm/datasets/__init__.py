"""Data sets; importing this package registers them."""

from medic_mm.datasets.embedded_shapes import EmbeddedShapes
from medic_mm.datasets.image_folder import ImageFolder

__all__ = ['EmbeddedShapes', 'ImageFolder']
