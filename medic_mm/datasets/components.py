"""Imports the data sets, so that the registry knows them; they need OpenMMLab."""

from medic_mm.datasets.embedded_shapes import EmbeddedShapes
from medic_mm.datasets.image_folder import ImageFolder

__all__ = ['EmbeddedShapes', 'ImageFolder']
