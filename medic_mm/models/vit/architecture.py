"""From the settings of a backbone to the arguments of timm's Vision Transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medic_mm.errors import UserError
from medic_mm.helpers import type_name

#: Backbones that are mmpretrain's ``VisionTransformer`` on whole images.
BACKBONES = ('MaskedViT', 'RelationViT', 'VisionTransformer', 'MAEViT')

# settings that change training, or what a forward pass hands out, but no token
_NO_MATTER = {
    *('type', 'init_cfg', 'drop_rate', 'drop_path_rate', 'constant_drop_path'),
    *('frozen_stages', 'interpolate_mode', 'out_indices', 'encoding', 'mask_ratio'),
}
_USED = {
    *('arch', 'img_size', 'patch_size', 'in_channels', 'patch_cfg', 'with_cls_token'),
    *('qkv_bias', 'layer_scale_init_value', 'layer_cfgs', 'block_heads'),
    *('norm_cfg', 'pre_norm', 'final_norm', 'out_type'),
}
_ESSENTIAL = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
# The name says no more than the width: every argument of the network is given with it.
_TIMM_NAMES = {
    192: 'vit_tiny_patch16_224',
    384: 'vit_small_patch16_224',
    768: 'vit_base_patch16_224',
    1024: 'vit_large_patch16_224',
    1280: 'vit_huge_patch14_224',
}


@dataclass(frozen=True)
class Architecture:
    """A network that timm can build.

    Attributes:
        name: A model in timm's registry.
        arguments: What ``timm.create_model`` takes besides the name; fit for JSON.
        last_block_heads: Heads of the last block where they differ from the rest
            (TinyMIM's adaptive block). timm has no argument for it.
    """

    name: str
    arguments: dict[str, Any]
    last_block_heads: int | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.arguments['img_size']
        return height, width


def describe_backbone(backbone: Mapping[str, Any]) -> Architecture:
    """The timm network that equals a backbone.

    Args:
        backbone: ``model.backbone`` of a config: one of :data:`BACKBONES`.

    Raises:
        UserError: for a setting that timm's ViT does not have.
    """
    kind = type_name(backbone)
    if kind not in BACKBONES:
        raise UserError(
            f'backbone.type={backbone.get("type")!r} is not a plain Vision '
            f'Transformer: export takes {", ".join(BACKBONES)}'
        )
    unknown = sorted(set(backbone) - _NO_MATTER - _USED)
    if unknown:
        raise UserError(
            f'backbone.{unknown[0]}={backbone[unknown[0]]!r} has no place in a timm '
            'ViT: export it without this setting'
        )
    arch = _arch(backbone.get('arch', 'base'))
    patch = _pair(backbone.get('patch_size', 16))
    if patch[0] != patch[1]:
        raise UserError(
            f'backbone.patch_size={backbone["patch_size"]!r}: export takes square '
            'patches'
        )
    scale = backbone.get('layer_scale_init_value', 0.0)
    if not isinstance(scale, (int, float)):
        raise UserError(
            f'backbone.layer_scale_init_value={scale!r} must be a number for export'
        )
    arguments = dict(
        img_size=_pair(backbone.get('img_size', 224)),
        patch_size=patch[0],
        in_chans=backbone.get('in_channels', 3),
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=_ratio(arch['embed_dims'], arch['feedforward_channels']),
        qkv_bias=backbone.get('qkv_bias', True),
        init_values=float(scale) if scale > 0 else None,
        pre_norm=backbone.get('pre_norm', False),
        **_norms(backbone),
    )
    _refuse_other_parts(backbone)
    name = _TIMM_NAMES.get(arch['embed_dims'], 'vit_base_patch16_224')
    heads = backbone.get('block_heads')
    other = None if heads in (None, arch['num_heads']) else int(heads)
    return Architecture(name, arguments, other)


def _arch(arch: str | Mapping[str, Any]) -> dict[str, int]:
    if isinstance(arch, str):
        try:
            from mmpretrain.models.backbones import VisionTransformer
        except ImportError as error:
            raise UserError(
                f'backbone.arch={arch!r} is a name of mmpretrain, which is not '
                'installed: install it, or write the architecture out in the config'
            ) from error
        zoo = VisionTransformer.arch_zoo
        if arch.lower() not in zoo:
            raise UserError(f'backbone.arch={arch!r} is unknown to mmpretrain')
        arch = zoo[arch.lower()]
    missing = [key for key in _ESSENTIAL if key not in arch]
    if missing:
        raise UserError(f'backbone.arch={dict(arch)} lacks {", ".join(missing)}')
    return {key: int(arch[key]) for key in _ESSENTIAL}


def _norms(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Final norms: after all tokens (pre-training), or after their mean."""
    pooled = backbone.get('out_type') == 'avg_featmap'
    final = backbone.get('final_norm', True)
    if pooled and final:
        raise UserError(
            "backbone.out_type='avg_featmap' with final_norm=True norms twice, which a "
            'timm ViT does not: use final_norm=False'
        )
    if not backbone.get('with_cls_token', True):
        raise UserError('backbone.with_cls_token=False: export needs the class token')
    norm = dict(backbone.get('norm_cfg') or dict(type='LN', eps=1e-6))
    if norm.get('type') != 'LN' or norm.get('eps', 1e-5) != 1e-6:
        raise UserError(
            f"backbone.norm_cfg={norm} has no place in timm's config: use "
            "dict(type='LN', eps=1e-6)"
        )
    # fc_norm=False keeps the trained norm where a user later asks for mean pooling
    return dict(
        final_norm=pooled or bool(final),
        fc_norm=pooled,
        global_pool='avg' if pooled else 'token',
    )


def _refuse_other_parts(backbone: Mapping[str, Any]) -> None:
    if backbone.get('patch_cfg'):
        raise UserError(
            f'backbone.patch_cfg={backbone["patch_cfg"]} has no place in a timm ViT: '
            'export takes a plain patch embedding'
        )
    blocks = backbone.get('layer_cfgs') or {}
    for block in [blocks] if isinstance(blocks, Mapping) else blocks:
        others = sorted(set(block) - {'drop_path_rate', 'drop_rate', 'attn_drop_rate'})
        if others:
            raise UserError(
                f'backbone.layer_cfgs sets {others[0]}={block[others[0]]!r}, which '
                'timm has no argument for: export takes blocks that are all alike'
            )


def _ratio(width: int, hidden: int) -> float:
    """A ratio from which timm's ``int(width * ratio)`` gives ``hidden`` again."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _pair(size: int | tuple[int, int] | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else [int(side) for side in size]
