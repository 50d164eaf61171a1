"""Every way by which a file of weights comes in, and what it makes of it.

A new tool or setting that takes a file is added to :data:`DOORS`; a new teacher with
``weights`` is missed by a test until it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plain_mae
import small_towers
import timm
import torch
from exported import MASKED, network, run_config
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_state_dict
from safetensors.torch import load_file
from torch import Tensor

import medic_mm
from medic_mm.checkpoints import convert_keys, load_backbone, read_state_dict
from medic_mm.cli.convert import convert_file
from medic_mm.cli.export_hf import export_hf
from medic_mm.engine.hooks import PretrainedBackboneHook, StrictWeightsHook
from medic_mm.models.teachers import MAETeacher, OpenCLIPTeacher, TimmTeacher
from medic_mm.models.teachers.base import FrozenTeacher
from medic_mm.pictures.common import load_whole
from medic_mm.registry import MODELS
from medic_mm.settings.student import load_student

Weights = dict[str, Tensor]

BACKBONE = dict(MASKED, arch=dict(MASKED['arch'], num_layers=2))
CONFIG = Config(run_config(BACKBONE))
TIMM = dict(model='vit_tiny_patch16_224', input_size=64)
TIMM_SIZE = dict(depth=2, embed_dim=24, num_heads=2)


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        layout: Names of the weights that it takes, of :func:`weights_of`.
        run: Takes the path; returns the weights that arrived, under the file's names.
        spare: A name that may stand in the file and is not used; ``''`` where all are.
        reads_only: Hands on what is in the file, so that no value is wrong for it.
    """

    layout: str
    run: Callable[[Path], Weights]
    spare: str = ''
    reads_only: bool = False


@cache
def weights_of(layout: str) -> Weights:
    """Whole weights in the names of a layout; not to be changed in place."""
    if layout == 'backbone':
        state = network(BACKBONE).state_dict()
        return {f'backbone.{k}': v.clone() for k, v in state.items()}
    if layout == 'mae':
        return plain_mae.random_weights()
    if layout == 'timm':
        vit = timm.create_model(
            TIMM['model'], img_size=TIMM['input_size'], num_classes=0, **TIMM_SIZE
        )
        return {k: v.detach().clone() for k, v in vit.state_dict().items()}
    visual = small_towers.small_clip().visual.state_dict()
    return {f'visual.{k}': v.clone() for k, v in visual.items()}


def blank() -> torch.nn.Module:
    """A backbone with other weights than the file."""
    return network(BACKBONE, seed=7)


def arrived(backbone: torch.nn.Module) -> Weights:
    return {f'backbone.{k}': v for k, v in backbone.state_dict().items()}


def by_load_backbone(path: Path) -> Weights:
    backbone = blank()
    load_backbone(backbone, path)
    return arrived(backbone)


def by_pretrained(path: Path) -> Weights:
    backbone = blank()
    backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    log = SimpleNamespace(info=print, warning=print)
    runner = SimpleNamespace(model=SimpleNamespace(backbone=backbone), logger=log)
    hook = PretrainedBackboneHook()
    hook.before_run(runner)
    hook.before_train(runner)
    return arrived(backbone)


def by_runner(path: Path) -> Weights:
    """``load_from`` and ``tools/test.py``: what the Runner reads, checks and loads."""
    model = torch.nn.Module()
    model.backbone = blank()
    runner = SimpleNamespace(
        model=model,
        cfg=Config(dict(load_from=str(path))),
        logger=SimpleNamespace(info=print, warning=print),
    )
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    StrictWeightsHook().after_load_checkpoint(runner, checkpoint)
    load_state_dict(model, checkpoint['state_dict'], strict=False)
    return dict(model.state_dict())


def by_init_cfg(path: Path) -> Weights:
    """An ``init_cfg`` of any part of a model."""
    model = BaseModule(dict(type='Pretrained', checkpoint=str(path)))
    model.backbone = blank()
    log = SimpleNamespace(info=print, warning=print)
    runner = SimpleNamespace(model=model, logger=log)
    hook = StrictWeightsHook()
    hook.before_run(runner)
    hook.before_train(runner)
    return dict(model.state_dict())


def by_student(path: Path) -> Weights:
    """k-NN, the linear probe and the pictures of features."""
    return arrived(load_student(CONFIG, str(path)).backbone)


def by_whole(path: Path) -> Weights:
    """Pictures of reconstructions and segmentations."""
    model = torch.nn.Module()
    model.backbone = blank()
    load_whole(model, str(path))
    return dict(model.state_dict())


def by_convert(path: Path) -> Weights:
    dest = path.with_name('converted.safetensors')
    convert_file(path, dest, 'timm')
    return convert_keys(load_file(dest), 'timm', 'mmpretrain')


def by_convert_mae(path: Path) -> Weights:
    dest = path.with_name('converted.safetensors')
    convert_file(path, dest, 'mmpretrain')
    return convert_keys(load_file(dest), 'mmpretrain', 'mae')


def by_load_model(path: Path) -> Weights:
    model = medic_mm.load_model(path, config=CONFIG.to_dict())
    return convert_keys(model.state_dict(), 'timm', 'mmpretrain')


def by_export(path: Path) -> Weights:
    folder = path.with_name(f'{path.stem}_export')
    export_hf(path, folder, config=CONFIG.to_dict())
    weights = load_file(folder / 'model.safetensors')
    return convert_keys(weights, 'timm', 'mmpretrain')


def by_mae_teacher(path: Path) -> Weights:
    teacher = MAETeacher(
        arch=plain_mae.ARCH,
        block=2,
        weights=str(path),
        input_size=plain_mae.PATCH * plain_mae.SIDE,
        patch_size=plain_mae.PATCH,
        decoder=plain_mae.DECODER,
        norm_pix=True,
    )
    teacher.init_weights()
    return convert_keys(teacher.network.state_dict(), 'mmpretrain', 'mae')


def by_timm_teacher(path: Path) -> Weights:
    teacher = TimmTeacher(**TIMM, weights=str(path), model_kwargs=dict(TIMM_SIZE))
    teacher.init_weights()
    return dict(teacher.network.state_dict())


def by_open_clip_teacher(path: Path) -> Weights:
    teacher = OpenCLIPTeacher(small_towers.clip_config(), weights=str(path))
    teacher.init_weights()
    return {f'visual.{k}': v for k, v in teacher.network.state_dict().items()}


HEAD = 'head.projection.weight'
DOORS = {
    'read_state_dict': Door('backbone', read_state_dict, HEAD, reads_only=True),
    'load_backbone': Door('backbone', by_load_backbone, HEAD),
    '--pretrained': Door('backbone', by_pretrained, HEAD),
    'load_from, test': Door('backbone', by_runner),
    'init_cfg': Door('backbone', by_init_cfg),
    'k-NN, probe': Door('backbone', by_student, HEAD),
    'visualize': Door('backbone', by_whole),
    'convert': Door('backbone', by_convert, HEAD),
    'convert an MAE': Door('mae', by_convert_mae),
    'load_model': Door('backbone', by_load_model, HEAD),
    'export_hf': Door('backbone', by_export, HEAD),
    'MAETeacher': Door('mae', by_mae_teacher),
    'TimmTeacher': Door('timm', by_timm_teacher, 'head.weight'),
    'OpenCLIPTeacher': Door('open_clip', by_open_clip_teacher, 'ln_final.weight'),
}


def teachers_with_files() -> set[str]:
    """Registered teachers that take ``weights``."""
    found: dict[str, Any] = MODELS.module_dict
    return {
        name
        for name, kind in found.items()
        if inspect.isclass(kind)
        and issubclass(kind, FrozenTeacher)
        and kind.__module__.startswith('medic_mm.')
        and 'weights' in inspect.signature(kind).parameters
    }
