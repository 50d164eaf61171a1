"""Small parts that several tests share: a fake teacher, a tiny MEDiC, a batch."""

from __future__ import annotations

import copy

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.masking import block_mask
from medic_mm.models.teachers import FrozenTeacher, TeacherOutput
from medic_mm.randomness import seeded_construction
from medic_mm.registry import MODELS

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@MODELS.register_module(force=True)
class TinyTeacher(FrozenTeacher):
    """A frozen convolution with a norm and a linear layer: 24 wide, patches of 8 px."""

    def __init__(self, **kwargs) -> None:
        with seeded_construction():
            network = nn.Sequential(
                nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 24), nn.LayerNorm(24)
            )
        kwargs = {'input_size': 32, **kwargs}
        half = (0.5, 0.5, 0.5)
        super().__init__(network, half, half, embed_dims=24, patch_size=8, **kwargs)
        self.calls = 0

    def load_weights(self) -> None:
        pass

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        self.calls += 1
        embed, *rest = self.network
        tokens = nn.Sequential(*rest)(embed(images).flatten(2).transpose(1, 2))
        out = TeacherOutput(tokens, tokens.mean(1))
        if attention:  # each patch looks at those like it
            out.attention = (tokens @ tokens.mT / 5).softmax(-1)
        return out


def medic_config(encoding: str = 'sparse', weights: dict | None = None, **head) -> dict:
    """A MEDiC of 32 px images in 8 px patches: a grid of 4x4."""
    return copy.deepcopy(
        dict(
            type='medic_mm.MEDiC',
            data_preprocessor=dict(
                type='medic_mm.HostSamplesPreprocessor', mean=MEAN, std=STD, to_rgb=True
            ),
            backbone=dict(
                type='medic_mm.MaskedViT',
                encoding=encoding,
                arch=dict(
                    embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96
                ),
                img_size=32,
                patch_size=8,
                layer_scale_init_value=0.1,
            ),
            neck=dict(
                type='mmpretrain.MAEPretrainDecoder',
                num_patches=16,
                patch_size=8,
                embed_dim=48,
                decoder_embed_dim=32,
                decoder_depth=1,
                decoder_num_heads=2,
            ),
            head=dict(
                type='medic_mm.MEDiCHead',
                embed_dims=48,
                target_dims=24,
                weights=weights,
                pixel_loss=dict(
                    type='mmpretrain.MAEPretrainHead',
                    norm_pix=True,
                    patch_size=8,
                    loss=dict(
                        type='mmpretrain.PixelReconstructionLoss', criterion='L2'
                    ),
                ),
                **head,
            ),
            target_generator=dict(type='medic_mm.TinyTeacher'),
        )
    )


def build_medic(*args, **kwargs) -> nn.Module:
    """Built and initialised from seed 0."""
    torch.manual_seed(0)
    model = MODELS.build(medic_config(*args, **kwargs))
    model.init_weights()
    return model


def batch(size: int = 4, seed: int = 0, num_masked: int = 6) -> dict:
    """Raw images and samples with masks, as the data loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, 32, 32), generator=generator)
    masks = block_mask(size, (4, 4), num_masked, generator, min_area=4)
    samples = [DataSample().set_mask(mask.view(4, 4).numpy()) for mask in masks]
    return dict(inputs=images.to(torch.uint8), data_samples=samples)
