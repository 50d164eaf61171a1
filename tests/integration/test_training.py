"""Whole runs through the tools: resuming, and two processes against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

# masks are drawn inside FixedView, so every run sees the same ones
CONFIG = """
_base_ = '{root}/configs/medic/medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
arch = dict(
    _delete_=True, embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
model = dict(
    backbone=dict(arch=arch, img_size=32),
    neck=dict(num_patches=16, embed_dim=48, decoder_embed_dim=32, decoder_depth=1,
              decoder_num_heads=2),
    head=dict(embed_dims=48, target_dims=64),
    target_generator=dict(
        _delete_=True, type='medic_mm.OpenCLIPTeacher', random_weights=True,
        model=dict(
            embed_dim=8,
            vision_cfg=dict(image_size=32, layers=2, width=64, patch_size=8),
            text_cfg=dict(context_length=4, vocab_size=8, width=64, heads=1,
                          layers=1))))
train_dataloader = dict(
    batch_size=8, num_workers=1, sampler=dict(shuffle=True),
    dataset=dict(
        _delete_=True, type='medic_mm.ImageFolder', data_root='{data}',
        pipeline=[
            dict(type='medic_mm.LoadReadableImage'),
            dict(type='medic_mm.FixedView', transforms=[
                dict(type='RandomFlip', prob=0.5),
                dict(type='medic_mm.RandomMask', grid=4, mask_ratio=0.40)]),
            dict(type='PackInputs')]))
custom_hooks = [dict(type='medic_mm.SkippedImagesHook')]
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
train_cfg = dict(max_epochs=4)
"""


@pytest.fixture
def config(tmp_path) -> Path:
    data = tmp_path / 'images'
    data.mkdir()
    random = np.random.default_rng(0)
    for i in range(16):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f'{i:02}.png')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=ROOT, data=data))
    return path


def call(*command: str | Path, **options: str) -> str:
    done = subprocess.run(
        [*map(str, command), '--cfg-options', *(f'{k}={v}' for k, v in options.items())]
        if options
        else [*map(str, command)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def train(config: Path, work_dir: Path, *more: str, **options: str) -> dict:
    tool = ROOT / 'tools' / 'train.py'
    call(sys.executable, tool, config, '--work-dir', work_dir, *more, **options)
    return weights(work_dir)


def weights(work_dir: Path) -> dict:
    checkpoint = torch.load(work_dir / 'epoch_4.pth', weights_only=False)
    return checkpoint['state_dict']


def assert_close(one: dict, two: dict, **tolerance: float) -> None:
    assert list(one) == list(two)
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], **tolerance, msg=key)


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(config, tmp_path):
    straight = train(config, tmp_path / 'straight')
    tool = ROOT / 'tools' / 'train.py'
    stopped = tmp_path / 'stopped'
    half = {'train_cfg.max_epochs': '2'}
    call(sys.executable, tool, config, '--work-dir', stopped, **half)
    assert not (stopped / 'epoch_4.pth').exists()
    resumed = train(config, stopped, '--resume')
    assert not any(key.startswith('target_generator') for key in resumed)
    assert_close(straight, resumed, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_train_as_one_does(config, tmp_path):
    # without an accelerator the processes meet over gloo
    one = train(config, tmp_path / 'one')
    pair = tmp_path / 'pair'
    half_each = {'train_dataloader.batch_size': '4'}
    dist_train = ROOT / 'tools' / 'dist_train.sh'
    call('bash', dist_train, config, '2', '--work-dir', pair, **half_each)
    # equal up to the order of summation, through Adam's first normalised steps
    assert_close(one, weights(pair), rtol=1e-3, atol=2e-5)
