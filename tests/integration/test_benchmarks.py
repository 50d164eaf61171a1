"""Benchmark configs through command lines: the hosts' own tools and ours."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / 'configs' / 'benchmarks'
CIFAR10 = (
    BENCHMARKS
    / 'classification'
    / 'vit-tiny-p8_medic-pre_1xb100-coslr-10e_cifar10-64px.py'
)
CAMVID = (
    BENCHMARKS
    / 'segmentation'
    / 'vit-tiny-p8_medic-pre_upernet_1xb8-400i_camvid-240x176.py'
)


def host_tool(host: str) -> Path:
    """The training tool that a host installs with itself."""
    pytest.importorskip(host)
    package = Path(importlib.import_module(host).__file__).parent
    tool = package / '.mim' / 'tools' / 'train.py'
    if not tool.is_file():
        pytest.skip(f'{host} is installed without its tools')
    return tool


def call(folder: Path, *command: str | Path, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output[-4000:]
    return output


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """The MEDiC student of laptop size as a pre-training run saves it."""
    name = 'medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'medic' / name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build(cfg.model.backbone)
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    path = tmp_path_factory.mktemp('pre') / 'epoch_20.pth'
    torch.save({'state_dict': {**state, 'head.weight': torch.zeros(2)}}, path)
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """Where the configs look for their data, with four images each."""
    random = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for i in range(10):  # a class may have no images, and has to be there
            (tmp_path / f'data/cifar10/{split}/class{i}').mkdir(parents=True)
        for i in range(4):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            save(pixels, tmp_path / f'data/cifar10/{split}/class{i % 2}/{i}.jpg')
            pixels = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            save(pixels, tmp_path / f'data/camvid/images/{split}/{i}.jpg')
            mask = random.integers(0, 11, (60, 80), dtype=np.uint8)
            save(mask, tmp_path / f'data/camvid/annotations/{split}/{i}.png')
    return tmp_path


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def small(*names: str) -> list[str]:
    loaders = [
        f'{name}.{setting}'
        for name in names
        for setting in ('num_workers=0', 'persistent_workers=False')
    ]
    return ['--cfg-options', *loaders, 'train_dataloader.batch_size=2']


@pytest.mark.slow
def test_mmpretrains_tool_then_ours(data, checkpoint):
    call(
        data,
        host_tool('mmpretrain'),
        CIFAR10,
        '--work-dir=work',
        *small('train_dataloader', 'val_dataloader'),
        'train_cfg.max_epochs=1',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
    )
    log = next((data / 'work').glob('*/*.log')).read_text()
    assert (
        'weights loaded; new in the network: nothing; left in the file: nothing' in log
    )
    output = call(data, ROOT / 'tools/test.py', CIFAR10, 'work/epoch_1.pth')
    assert 'accuracy/top1' in output


@pytest.mark.slow
def test_mmsegs_tool_then_ours(data, checkpoint):
    call(
        data,
        host_tool('mmseg'),
        CAMVID,
        '--work-dir=work',
        *small('train_dataloader', 'val_dataloader'),
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
    )
    log = next((data / 'work').glob('*/*.log')).read_text()
    assert 'new in the network: nothing; left in the file: ln1.weight, ln1.bias' in log
    output = call(data, ROOT / 'tools/test.py', CAMVID, 'work/iter_2.pth', '--tta')
    assert 'mIoU' in output


@pytest.mark.slow
def test_our_tool_refuses_a_mask_with_a_class_too_many(data, checkpoint):
    mask = np.full((60, 80), 11, dtype=np.uint8)
    for i in range(4):
        save(mask, data / f'data/camvid/annotations/train/{i}.png')
    output = call(
        data,
        ROOT / 'tools/train.py',
        CAMVID,
        '--pretrained',
        checkpoint,
        *small('train_dataloader', 'val_dataloader'),
        ok=False,
    )
    last = output.strip().splitlines()[-1]
    assert last.startswith('error: the mask data/camvid/annotations/train/')
    assert 'holds class 11 but model.decode_head has num_classes=11' in last
