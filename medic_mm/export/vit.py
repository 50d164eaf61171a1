"""A timm Vision Transformer with the weights of a backbone."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from medic_mm.checkpoints.conversion import convert_keys
from medic_mm.checkpoints.strict import load_strictly
from medic_mm.errors import FileError, UserError
from medic_mm.export.architecture import Architecture, describe_backbone
from medic_mm.export.preprocessing import Preprocessing, describe_preprocessing
from medic_mm.export.source import Source


def describe_source(source: Source) -> tuple[Architecture, Preprocessing]:
    """Architecture and preprocessing of a checkpoint's backbone.

    Raises:
        ValueError: for settings that a timm ViT does not have.
    """
    architecture = describe_backbone(source.backbone)
    return architecture, describe_preprocessing(source.config, architecture.image_size)


def timm_weights(source: Source) -> dict[str, Tensor]:
    """The backbone's weights under timm's names; no value is copied or changed."""
    try:
        return convert_keys(source.weights, 'mmpretrain', 'timm')
    except UserError as error:
        raise FileError(f'checkpoint {source.path}: {error}') from error


def timm_settings(
    architecture: Architecture, preprocessing: Preprocessing
) -> dict[str, Any]:
    """What timm calls ``pretrained_cfg``; fit for JSON."""
    return dict(
        custom_load=False,
        fixed_input_size=True,
        **preprocessing.data,
        num_classes=0,
        pool_size=None,
        first_conv='patch_embed.proj',
        classifier='head',
    )


def build_vit(
    source: Source,
    architecture: Architecture,
    preprocessing: Preprocessing,
    num_classes: int = 0,
) -> VisionTransformer:
    """Build the network and load the weights, strictly.

    Args:
        source: The checkpoint.
        architecture: Of its backbone.
        preprocessing: Of its images.
        num_classes: Outputs of a new linear head, which starts at random; 0: no head.

    Raises:
        RuntimeError: where weights and config do not fit.
    """
    model = timm.create_model(
        architecture.name,
        pretrained=False,
        pretrained_cfg=timm_settings(architecture, preprocessing),
        num_classes=num_classes,
        **architecture.arguments,
    )
    load_strictly(
        model,
        timm_weights(source),
        f'checkpoint {source.path}',
        'The names are those of timm; the config must be of the same pre-training',
        new=('head.',),
    )
    if architecture.last_block_heads is not None:
        set_heads(model, architecture.last_block_heads)
    return model


def set_heads(model: VisionTransformer, heads: int) -> None:
    """Split the last block's width into another number of heads."""
    attention = model.blocks[-1].attn
    attention.num_heads = heads
    attention.head_dim = model.embed_dim // heads
    attention.scale = attention.head_dim**-0.5
