"""Constructors of optimizer groups."""

from medic_mm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['LayerDecayOptimWrapperConstructor']
