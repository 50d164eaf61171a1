"""Tiny Vision Transformers of the code bases, with weights that nothing leaves out."""

from __future__ import annotations

import torch
from mmpretrain.models.backbones import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

DIMS, DEPTH, HEADS, PATCH, IMAGE = 16, 3, 2, 4, 16
ARCH = dict(
    embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * DIMS
)


def fill(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every weight from a normal distribution, so that each one matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    network.eval()  # returns nothing in mmpretrain
    return network


def mmpretrain_vit(**settings) -> nn.Module:
    """A host's network whose output is all tokens."""
    settings = dict(img_size=IMAGE, patch_size=PATCH, out_type='raw') | settings
    return fill(VisionTransformer(ARCH, **settings))


def timm_vit(**settings) -> nn.Module:
    """A timm network without classifier."""
    settings = dict(img_size=IMAGE, patch_size=PATCH, num_classes=0) | settings
    return TimmViT(embed_dim=DIMS, depth=DEPTH, num_heads=HEADS, **settings).eval()


def checkpoint(network: nn.Module) -> dict[str, Tensor]:
    """The weights as a training of mmpretrain saves them."""
    return {f'backbone.{k}': v.clone() for k, v in network.state_dict().items()}


def images(size: int = IMAGE) -> Tensor:
    """Two images."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
