"""Checkpoints of tiny runs, as MMEngine writes them, for the tests of exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from tiny import MEAN, STD
from torch import Tensor, nn

from medic_mm.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
MASKED = dict(
    type='medic_mm.MaskedViT',
    arch=ARCH,
    img_size=32,
    patch_size=8,
    drop_path_rate=0.1,
    layer_scale_init_value=0.1,
)
RELATION = dict(type='medic_mm.RelationViT', arch=ARCH, img_size=32, patch_size=8)
TINYMIM = dict(RELATION, block_heads=4, constant_drop_path=True)
SQUASH = dict(type='Resize', scale=32, backend='pillow', interpolation='bicubic')


def run_config(backbone: dict, steps: list[dict] | None = None, **settings) -> dict:
    """A config of pre-training with k-NN on images prepared by ``steps``."""
    pipeline = [dict(type='LoadImageFromFile'), *(steps or [SQUASH])]
    dataset = dict(
        type='CustomDataset',
        data_root='/machine/data/pictures/',
        pipeline=[*pipeline, dict(type='PackInputs')],
    )
    return dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(
            type='medic_mm.HostSamplesPreprocessor', mean=MEAN, std=STD, to_rgb=True
        ),
        model=dict(
            type='medic_mm.MEDiC',
            backbone=backbone,
            head=dict(type='medic_mm.MEDiCHead', weights=dict(token=1.0, cls=0.3)),
            target_generator=dict(
                type='medic_mm.CachedTeacher',
                teacher=dict(
                    type='medic_mm.TimmTeacher',
                    model='vit_small_patch14_dinov2',
                    weights='/machine/teachers/vits14.safetensors',
                ),
            ),
        ),
        train_dataloader=dict(batch_size=7, dataset=dataset),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        custom_hooks=[
            dict(type='medic_mm.KNNHook', test_dataloader=dict(dataset=dataset))
        ],
        **settings,
    )


def network(backbone: dict, seed: int = 0) -> nn.Module:
    """A backbone in which no two weights are alike, in eval mode."""
    built = MODELS.build(dict(backbone))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in built.parameters():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(0.2 * noise + (0.7 if value.ndim == 1 else 0))
    built.eval()
    return built


def save_checkpoint(path: Path, config: dict | str | None, backbone: nn.Module) -> Path:
    """What a run leaves: weights of all its parts, meta data, and a log history."""
    state = {f'backbone.{key}': v for key, v in backbone.state_dict().items()}
    state['head.projection.weight'] = torch.zeros(2, 2)
    meta: dict[str, Any] = dict(epoch=4, iter=40, seed=5, mmengine_version='0.10.12')
    if config is not None:
        text = config if isinstance(config, str) else Config(config).pretty_text
        meta['cfg'] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    history = dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])})
    torch.save(dict(meta=meta, state_dict=state, message_hub=history), path)
    return path


def make_run(folder: Path, backbone: dict, **settings) -> tuple[Path, nn.Module]:
    """A checkpoint and the network in it."""
    built = network(backbone)
    config = run_config(backbone, **settings)
    return save_checkpoint(folder / 'epoch_4.pth', config, built), built


def write_scalars(folder: Path, rows: list[dict]) -> None:
    """The log of a run, where MMEngine puts it."""
    (folder / 'vis_data').mkdir(parents=True)
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / 'vis_data' / 'scalars.json').write_text(text)


def images(size: int = 4, side: int = 32) -> Tensor:
    """Random normalised images ``(size, 3, side, side)``."""
    return torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(1))
