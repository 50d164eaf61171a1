"""Encoders: one that takes a mask, one that hands out a block's q, k and v."""

from medic_mm.models.backbones.masked_vit import MaskedViT
from medic_mm.models.backbones.relation_vit import RelationViT

__all__ = ['MaskedViT', 'RelationViT']
