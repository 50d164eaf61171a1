"""A tiny labelled image folder and a training config that evaluates k-NN on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from tiny import medic_config

CLASSES = ('dark', 'grey', 'light')


def make_folder(root: Path, per_class: int = 5) -> Path:
    """Noisy 32 px images under ``train`` and ``val``; classes differ in brightness."""
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(CLASSES):
            target = root / split / name
            target.mkdir(parents=True)
            for index in range(per_class):
                # brightness varies within a class too: k-NN gets some wrong
                brightness = 40 * label + generator.integers(0, 75)
                image = generator.integers(0, 100, (32, 32, 3)) + brightness
                cv2.imwrite(str(target / f'{index}.png'), image.astype(np.uint8))
    return root


def loader_config(folder: Path, split: str, **dataset) -> dict:
    """A loader for k-NN: in order, without augmentation."""
    return dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='CustomDataset',
            data_prefix=str(folder / split),
            serialize_data=False,  # collects garbage, which takes longer than a test
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
            **dataset,
        ),
    )


def knn_hook_config(folder: Path, **settings) -> dict:
    """The hook on the two splits."""
    return dict(
        type='medic_mm.KNNHook',
        train_dataloader=loader_config(folder, 'train'),
        test_dataloader=loader_config(folder, 'val'),
        **settings,
    )


def training_config(folder: Path, work_dir: Path, hooks: list[dict]) -> dict:
    """MEDiC for two epochs of three batches; drop path, masks and order are random."""
    model = medic_config()
    model['backbone']['drop_path_rate'] = 0.3
    loader = loader_config(folder, 'train')
    loader.update(batch_size=5, sampler=dict(type='DefaultSampler', shuffle=True))
    loader['dataset']['pipeline'] = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomFlip', prob=0.5),
        dict(type='medic_mm.RandomMask', grid=4, mask_ratio=0.5),
        dict(type='PackInputs'),
    ]
    return dict(
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        model=model,
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        custom_hooks=hooks,
        randomness=dict(seed=3),
        visualizer=dict(
            type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
        ),
        log_level='WARNING',
    )
