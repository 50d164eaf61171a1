"""Imports the metrics, so that the registry knows them; they need a host."""

from medic_mm.evaluation.layer_accuracy import LayerAccuracy
from medic_mm.evaluation.subset_accuracy import SubsetAccuracy

__all__ = ['LayerAccuracy', 'SubsetAccuracy']
