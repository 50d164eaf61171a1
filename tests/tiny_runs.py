"""Tiny configs of the host's models, for tests that run the tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

SIZE = 32
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def write_images(folder: Path, per_class: int = 4) -> Path:
    """Two classes that differ in brightness: ``dark/*.png``, ``light/*.png``."""
    random = np.random.default_rng(0)
    for name, low in (('dark', 0), ('light', 128)):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = random.integers(low, low + 128, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{index}.png')
    return folder


def _loader(images: Path, shuffle: bool, batch_size: int = 2) -> dict:
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(
            type='CustomDataset',
            data_root=str(images),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        ),
    )


def _common(images: Path, epochs: int) -> dict[str, Any]:
    return dict(
        default_scope='mmpretrain',
        train_dataloader=_loader(images, shuffle=True),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[
            dict(type='CosineAnnealingLR', T_max=epochs, convert_to_iter_based=True)
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', interval=1),
        ),
        randomness=dict(seed=0),
    )


def mae_config(images: Path, epochs: int = 1) -> Config:
    """The host's MAE, 16 patches of 8 pixels."""
    model = dict(
        type='MAE',
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3
        ),
        backbone=dict(
            type='MAEViT', arch=dict(ARCH), img_size=SIZE, patch_size=8, mask_ratio=0.5
        ),
        neck=dict(
            type='MAEPretrainDecoder',
            num_patches=16,
            patch_size=8,
            embed_dim=ARCH['embed_dims'],
            decoder_embed_dim=16,
            decoder_depth=1,
            decoder_num_heads=2,
        ),
        head=dict(
            type='MAEPretrainHead',
            patch_size=8,
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
        ),
    )
    return Config(dict(model=model, **_common(images, epochs)))


def classifier_config(images: Path, epochs: int = 1) -> Config:
    """The host's ViT classifier with a test loop; nothing in it is random."""
    model = dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            num_classes=2, mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True
        ),
        backbone=dict(
            type='VisionTransformer', arch=dict(ARCH), img_size=SIZE, patch_size=8
        ),
        head=dict(
            type='VisionTransformerClsHead',
            num_classes=2,
            in_channels=ARCH['embed_dims'],
            loss=dict(type='CrossEntropyLoss'),
        ),
    )
    return Config(
        dict(
            model=model,
            **_common(images, epochs),
            test_dataloader=_loader(images, shuffle=False),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy', topk=(1,)),
        )
    )


def write_config(cfg: Config, path: Path) -> Path:
    """Write a config file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    return path
