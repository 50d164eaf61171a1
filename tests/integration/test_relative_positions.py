"""MaskDistill from its pre-training to the table of its benchmarks, by the tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from labelled import make_folder
from mmengine.config import Config
from PIL import Image
from shrinking import shrink
from shrinking_benchmarks import shrink_benchmark

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = (
    'classification/beit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py',
    'segmentation/beit-base-p16_medic-pre_upernet_8xb2-amp-160k_ade20k-512x512.py',
)


def call(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


def write_ade20k(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(4):
            pixels = random.integers(0, 256, (50 + 20 * i, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f'images/{split}/{i}.jpg')
            mask = random.integers(0, 151, pixels.shape[:2], dtype=np.uint8)
            Image.fromarray(mask).save(folder / f'annotations/{split}/{i}.png')


def write_configs(folder: Path) -> tuple[Path, Path]:
    """A root whose configs are small: the pre-training's, and the two benchmarks."""
    cfg = shrink(Config.fromfile(ROOT / 'configs/maskdistill/vitb_300e.py'))
    # blocks as in the segmentor, which takes features of four
    cfg.model.backbone.arch.num_layers = 4
    cfg.train_dataloader.update(batch_size=5, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = 'data/imagenet'
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler, cfg.custom_hooks = [], []
    cfg.dump(folder / 'pretraining.py')
    small = folder / 'root'
    (small / 'configs' / 'benchmarks').mkdir(parents=True)
    (small / 'tools').symlink_to(ROOT / 'tools')
    for name in BENCHMARKS:
        cfg = shrink_benchmark(Config.fromfile(ROOT / 'configs' / 'benchmarks' / name))
        cfg.model.backbone.arch.num_layers = 4
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[loader].update(num_workers=0, persistent_workers=False)
        cfg.train_dataloader.batch_size = 2
        if 'classification' in name:
            # three classes, where ImageNet has a thousand
            cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 3
            cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1,)
            cfg.test_dataloader.dataset.type = 'medic_mm.ImageFolder'
            cfg.test_dataloader.dataset.pop('split')
            cfg.test_dataloader.dataset.update(data_prefix='val', with_label=True)
        cfg.val_dataloader = cfg.test_dataloader
        cfg.param_scheduler = []
        if 'segmentation' in name:
            cfg.train_cfg.update(max_iters=2, val_interval=2)
            cfg.default_hooks.checkpoint.interval = 2
        else:
            cfg.train_cfg.max_epochs = 1
        (small / 'configs' / 'benchmarks' / name).parent.mkdir()
        cfg.dump(small / 'configs' / 'benchmarks' / name)
    return folder / 'pretraining.py', small


@pytest.mark.newcomers
@pytest.mark.timeout(240)
def test_maskdistill_to_its_benchmarks(tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    make_folder(tmp_path / 'data' / 'imagenet')
    write_ade20k(tmp_path / 'data' / 'ADEChallengeData2016')
    pretraining, small = write_configs(tmp_path)
    call(tmp_path, ROOT / 'tools/train.py', pretraining, '--work-dir', 'pre')
    script = (
        'import sys\n'
        'from pathlib import Path\n'
        'from medic_mm.cli.evaluate import evaluate\n'
        f'found = evaluate("pre/epoch_1.pth", root=Path({str(small)!r}), '
        'suite=["finetune", "segmentation"], out=Path("out"))\n'
        'sys.exit(bool(found.failed))\n'
    )
    output = call(tmp_path, '-c', script)
    assert 'BEiT of 4 blocks, 48 wide, patches of 16, LayerScale' in output
    found = json.loads((tmp_path / 'out' / 'evaluation.json').read_text())
    assert [Path(row['config']).name for row in found['rows']] == [
        Path(name).name for name in BENCHMARKS
    ]
    for kind in ('finetune-imagenet', 'segmentation-ade20k'):
        log = next((tmp_path / 'out' / kind).glob('*/*.log')).read_text()
        assert 'new in the network: nothing; left in the file: ' in log
        assert 'each block has a copy of the shared relative positions' in log
