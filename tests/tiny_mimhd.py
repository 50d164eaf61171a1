"""A tiny MIM-HD: a random MAE teacher of 4 heads, a student of 3, a 4x4 grid."""

from __future__ import annotations

import copy

import torch
from mmpretrain.structures import DataSample
from tiny import MEAN, STD
from torch import nn

from medic_mm.registry import MODELS

RELATIONS = dict(qk=1.0, vv=1.0, pixel=0.0)
TEACHER = dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=128)
STUDENT = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)


def mimhd_config(
    weights: dict | None = None, matching: dict | None = None, **settings
) -> dict:
    """A MIM-HD of 32 px images in 8 px patches; ``settings`` are MIMHD's own."""
    return copy.deepcopy(
        dict(
            type='medic_mm.MIMHD',
            data_preprocessor=dict(
                type='medic_mm.HostSamplesPreprocessor', mean=MEAN, std=STD, to_rgb=True
            ),
            backbone=dict(
                type='medic_mm.RelationViT', arch=STUDENT, img_size=32, patch_size=8
            ),
            neck=dict(
                type='medic_mm.DualViewDecoder',
                embed_dims=48,
                teacher_dims=64,
                decoder_dims=32,
            ),
            head=dict(
                type='medic_mm.MIMHDHead',
                student_heads=3,
                teacher_heads=4,
                num_tokens=17,
                matching=matching or dict(type='medic_mm.AdaptiveMatching'),
                weights=weights or dict(qk=1.0, vv=1.0, pixel=0.1),
                pixel_loss=dict(
                    type='mmpretrain.MAEPretrainHead',
                    norm_pix=True,
                    patch_size=8,
                    loss=dict(
                        type='mmpretrain.PixelReconstructionLoss', criterion='L2'
                    ),
                ),
            ),
            target_generator=dict(
                type='medic_mm.MAETeacher',
                arch=TEACHER,
                block=3,
                input_size=32,
                patch_size=8,
                decoder=dict(embed_dims=32, depth=2, num_heads=4),
                norm_pix=True,
                random_weights=True,
            ),
            student_block=3,
            **settings,
        )
    )


def initialised(config: dict) -> nn.Module:
    """Built and initialised from seed 0."""
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


def build_mimhd(*args, **kwargs) -> nn.Module:
    """The model of :func:`mimhd_config`, initialised."""
    return initialised(mimhd_config(*args, **kwargs))


def image_batch(size: int = 4, seed: int = 0) -> dict:
    """Raw images without masks, as the data loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, 32, 32), generator=generator)
    samples = [DataSample() for _ in range(size)]
    return dict(inputs=images.to(torch.uint8), data_samples=samples)


def tinymim_config() -> dict:
    """TinyMIM: relations alone, the last block with the teacher's 4 heads."""
    config = mimhd_config(RELATIONS, dict(type='medic_mm.OneToOneMatching'))
    config['backbone']['block_heads'] = config['head']['student_heads'] = 4
    return config


def inputs_of(model: nn.Module, data: dict) -> dict:
    """A batch after the preprocessor."""
    return model.data_preprocessor(copy.deepcopy(data), True)


def losses_of(model: nn.Module, data: dict, seed: int = 7) -> dict:
    """What a step returns, with the views of a seed."""
    torch.manual_seed(seed)
    return model(**inputs_of(model, data), mode='loss')


def total(losses: dict) -> torch.Tensor:
    """What mmengine would train on."""
    return sum(value for key, value in losses.items() if 'loss' in key)
