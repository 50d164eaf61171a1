"""Encoders that take a mask."""

from medic_mm.models.backbones.masked_vit import MaskedViT

__all__ = ['MaskedViT']
