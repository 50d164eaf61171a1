"""The student that a checkpoint of pre-training holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medic_mm.checkpoints.openmmlab import read_config_file
from medic_mm.errors import UserError
from medic_mm.export.source import read_source
from medic_mm.helpers import type_name
from medic_mm.models.vit.architecture import describe_backbone
from medic_mm.registry import MODELS
from medic_mm.settings.pretrained import RANDOM

#: What a recipe takes from the student; positions are resized
SIZES = ('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'patch_size')
# MEDiC trains the class token, the others the patch tokens
_FAMILIES = {'MEDiC': 'medic-pre', 'MIMHD': 'mimhd-pre', 'MAE': 'mimhd-pre'}
# mmpretrain's BEiT, and its defaults
_BEIT = {
    'BEiTViT': dict(use_rel_pos_bias=True, layer_scale_init_value=0.1),
    'BEiTPretrainViT': dict(use_shared_rel_pos_bias=True, layer_scale_init_value=0.1),
}


@dataclass(frozen=True)
class PretrainedStudent:
    """What is evaluated.

    Attributes:
        checkpoint: The file, or ``'random'``.
        settings: The config of its pre-training, as plain containers.
        network: What :func:`describe_network` says; None for a backbone of one's own.
        problem: Why there is no ``network``.
        trusted: Whether the user gave the config; else the checkpoint carried it.
    """

    checkpoint: str
    settings: dict[str, Any]
    network: dict[str, Any] | None
    problem: str = ''
    trusted: bool = False

    @property
    def backbone(self) -> dict[str, Any]:
        """``model.backbone`` of the config."""
        return self.settings['model']['backbone']

    @property
    def family(self) -> str:
        """``'medic-pre'`` for MEDiC and what is built on it, else ``'mimhd-pre'``.

        Recipes of the second read the mean patch token, which each method trains.
        """
        model = self.settings['model']
        names = [type_name(model)]
        if self.trusted and isinstance(model.get('type'), str):
            # a registry imports what a type names: not for a downloaded config
            names += [
                x.__name__ for x in getattr(MODELS.get(model['type']), 'mro', list)()
            ]
        return next((_FAMILIES[x] for x in names if x in _FAMILIES), 'mimhd-pre')

    @property
    def image_size(self) -> int:
        """Side of its images."""
        size = self.backbone.get('img_size', 224)
        return int(size if isinstance(size, int) else max(size))

    @property
    def title(self) -> str:
        """For example ``'ViT of 12 blocks, 768 wide, patches of 16, LayerScale'``."""
        if self.network is None:
            return f'{self.backbone.get("type")} ({self.problem})'
        scale = 'LayerScale' if has_layer_scale(self.backbone) else 'no LayerScale'
        return (
            f'{self.network["kind"]} of {self.network["depth"]} blocks, '
            f'{self.network["embed_dim"]} wide, patches of '
            f'{self.network["patch_size"]}, {scale}'
        )


def read_student(checkpoint: str, config: Path | None = None) -> PretrainedStudent:
    """Find out which student a checkpoint holds.

    Args:
        checkpoint: A file of pre-training, or ``'random'``.
        config: The config of the pre-training. Default: the one in the checkpoint,
            which is read without running it; ``'random'`` needs one.

    Raises:
        UserError: for no such file, one that is torn, carries code or has no
            backbone, and where there is no config.
    """
    if config is not None and not config.is_file():
        raise UserError(f"--config: config '{config}' does not exist")
    if checkpoint == RANDOM:
        if config is None:
            raise UserError(
                "checkpoint 'random' needs --config CONFIG: the pre-training whose "
                'student is drawn at random'
            )
        settings = read_config_file(config)
        if not isinstance((settings.get('model') or {}).get('backbone'), dict):
            raise UserError(f'--config: {config} has no model.backbone')
    elif not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint!r} does not exist')
    else:
        try:
            settings = read_source(checkpoint, config).config
        except RuntimeError as error:
            raise UserError(str(error)) from error
    network, problem = None, ''
    try:
        network = describe_network(settings['model']['backbone'])
    except ValueError as error:
        problem = str(error)
    return PretrainedStudent(checkpoint, settings, network, problem, config is not None)


def describe_network(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What two backbones must share for the weights of one to fit the other.

    Args:
        backbone: ``model.backbone`` of a config.

    Raises:
        ValueError: for a backbone that is neither a ViT nor a BEiT.
    """
    kind, name = backbone.get('type'), type_name(backbone)
    if isinstance(kind, str) and kind.rpartition('.')[0] not in (
        *('', 'medic_mm', 'mmpretrain'),
    ):
        raise ValueError(f'backbone.type={kind!r} is neither ours nor of mmpretrain')
    settings, positions = dict(backbone), {}
    if name in _BEIT:
        settings = {**_BEIT[name], **settings, 'type': 'VisionTransformer'}
        # a table for all blocks can be copied to each of them
        tables = [
            settings.pop(key, False)
            for key in ('use_rel_pos_bias', 'use_shared_rel_pos_bias')
        ]
        positions['relative'] = any(tables)
        positions['absolute'] = settings.pop('use_abs_pos_emb', False)
        for key in ('bias', 'patch_cfg', 'out_type', 'final_norm'):
            settings.pop(key, None)  # a Vision Transformer lacks them
        if isinstance(arch := settings.get('arch', 'base'), str):
            from mmpretrain.models.backbones import BEiTViT

            if arch.lower() not in BEiTViT.arch_zoo:
                raise ValueError(f'backbone.arch={arch!r} is unknown to {name}')
            settings['arch'] = BEiTViT.arch_zoo[arch.lower()]
    found = describe_backbone(settings).arguments
    shape = {key: found[key] for key in (*SIZES, 'in_chans')}
    return {**shape, **positions, 'kind': 'BEiT' if name in _BEIT else 'ViT'}


def has_layer_scale(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone of either kind scales its branches."""
    default = _BEIT.get(type_name(backbone), {}).get('layer_scale_init_value', 0.0)
    return backbone.get('layer_scale_init_value', default) > 0


def features_model(student: PretrainedStudent) -> dict[str, Any]:
    """The settings from which a student is built for its features."""
    settings, model = student.settings, student.settings['model']
    preprocessor = (
        model.get('data_preprocessor') or settings.get('data_preprocessor') or {}
    )
    if not student.trusted:
        # a registry builds any function that a type names, so a downloaded checkpoint
        # gives plain numbers and a backbone that is known
        numbers = ('mean', 'std', 'to_rgb')
        preprocessor = {x: preprocessor[x] for x in numbers if x in preprocessor}
        preprocessor['type'] = 'medic_mm.HostSamplesPreprocessor'
        backbone = {k: v for k, v in student.backbone.items() if k != 'init_cfg'}
        return dict(model=dict(backbone=backbone, data_preprocessor=preprocessor))
    kept = {k: model[k] for k in ('backbone', 'init_cfg') if model.get(k) is not None}
    found: dict[str, Any] = dict(model=dict(kept, data_preprocessor=preprocessor))
    if settings.get('custom_imports'):
        found['custom_imports'] = settings['custom_imports']
    return found
