"""``--check``: one list of all that is missing."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from shrinking import shrink
from tiny_runs import classifier_config, mae_config, write_config, write_images

from medic_mm.cli.train import check_training
from medic_mm.settings import needs, readiness


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / 'images')


def check(cfg: Config, tmp_path: Path, **arguments: Any) -> readiness.Readiness:
    cfg.work_dir = str(tmp_path / 'work')
    path = write_config(cfg, tmp_path / 'config.py')
    return check_training(path, **arguments)


def test_a_training_that_can_start(images: Path, tmp_path: Path) -> None:
    ready = check(mae_config(images), tmp_path)
    assert ready, str(ready)
    text = str(ready)
    assert 'train_dataloader: 8 images, 4 steps of 2 an epoch; 2 read in' in text
    assert re.search(r'memory: 0\.0 M trained and 0\.0 M frozen weights; about', text)
    assert re.search(r'checkpoints in .*work: 0\.0 GB for 2 of', text)
    assert text.endswith('\nready')
    assert not (tmp_path / 'work').exists()


def test_steps_are_those_of_all_processes(images: Path, tmp_path: Path) -> None:
    assert '2 steps of 2 x 2 an epoch' in str(
        check(mae_config(images), tmp_path, processes=2)
    )


def test_all_that_is_missing_is_in_one_list(images: Path, tmp_path: Path) -> None:
    cfg = classifier_config(images)
    cfg.val_dataloader = cfg.test_dataloader.copy()
    cfg.val_dataloader.dataset = dict(
        type='medic_mm.ImageFolder', data_root=str(tmp_path / 'absent')
    )
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='Accuracy')
    cfg.train_dataloader.update(batch_size=99, drop_last=True)
    cfg.model.backbone.archh = 'x'
    cfg.model.head.num_classes = 0
    cfg.load_from = 'absent.pth'
    ready = check(cfg, tmp_path)
    missing = '\n'.join(ready.missing)
    for part in (
        "model.backbone has no setting 'archh': did you mean 'arch'?",
        'model.head.num_classes is 0',
        'train_dataloader has 8 images, 8 for each process, fewer than batch_size=99',
        'absent does not exist',
        'load_from=absent.pth: there is no such file',
    ):
        assert part in missing, str(ready)
    assert f'{len(ready.missing)} things are missing' in str(ready)


def test_every_advice_on_steps_works(images: Path, tmp_path: Path) -> None:
    cfg = mae_config(images)
    cfg.train_dataloader.update(batch_size=99, drop_last=True)
    options = {'train_dataloader.batch_size': 8}
    assert check(cfg, tmp_path, options=options)
    assert check(cfg, tmp_path, options={'train_dataloader.drop_last': False})


def test_classes_are_compared(images: Path, tmp_path: Path) -> None:
    cfg = classifier_config(images)
    other = write_images(tmp_path / 'other')
    (other / 'dark').rename(other / 'dusk')
    cfg.train_dataloader.dataset.update(type='medic_mm.ImageFolder', with_label=True)
    cfg.val_dataloader = copy.deepcopy(cfg.train_dataloader)
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='Accuracy')
    assert check(cfg, tmp_path)
    cfg.val_dataloader.dataset.data_root = str(other)
    ready = check(cfg, tmp_path)
    assert len(ready.missing) == 1
    assert 'dusk' in ready.missing[0]


def test_too_little_memory_and_disk(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, '_memory_there', lambda: ('the GPU', 2_000_000))
    monkeypatch.setattr(
        needs.shutil, 'disk_usage', lambda _: type('Usage', (), dict(free=10))
    )
    cfg = mae_config(images)
    cfg.train_dataloader.batch_size = 4000
    cfg.train_dataloader.drop_last = False
    missing = check(cfg, tmp_path).missing
    assert len(missing) == 2, missing
    assert re.search(
        r'memory: .* set train_dataloader.batch_size to \d+ at most', missing[0]
    )
    assert 'but 0.0 GB are free' in missing[1]


def test_a_hub_that_cannot_be_reached(
    root: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = shrink(Config.fromfile(root / 'configs/medic/vitb_300e.py'))
    cfg.custom_hooks = []
    cfg.train_dataloader.dataset.update(data_root=str(images), data_prefix='')
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    assert check(cfg, tmp_path), 'random weights need no hub'
    cfg.model.target_generator.update(
        model='ViT-B-16-quickgelu', weights='openai', random_weights=False
    )
    asked: list[str] = []
    monkeypatch.setattr(readiness, 'kept_file', lambda *_: None)
    monkeypatch.setattr(
        readiness, 'unreachable', lambda x: asked.append(x) or 'no route'
    )
    monkeypatch.setattr(readiness, '_build_model', lambda _: torch.nn.Linear(1, 1))
    missing = check(cfg, tmp_path).missing
    assert len(asked) == 1
    assert len(missing) == 1
    assert 'cannot be reached (no route)' in missing[0]
    assert 'model.target_generator.weights=PATH' in missing[0]
    cfg.model.target_generator.weights = 'absent.pt'
    missing = check(cfg, tmp_path).missing
    assert missing == [
        'model.target_generator.weights=absent.pt: there is no such file'
    ]


def test_images_that_cannot_be_read(images: Path, tmp_path: Path) -> None:
    for file in images.rglob('*.png'):
        file.write_bytes(b'no image')
    ready = check(mae_config(images), tmp_path)
    assert any(line.startswith('train_dataloader') for line in ready.missing)
