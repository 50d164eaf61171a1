"""Data without one class, through every tool and hook that gives an accuracy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from labelled import knn_hook_config, training_config
from mmengine.config import Config
from PIL import Image
from tiny_runs import classifier_config, write_config

from medic_mm.cli.knn import evaluate_knn
from medic_mm.cli.linear_probe import evaluate_linear
from medic_mm.cli.test import run_testing
from medic_mm.cli.train import run_training
from medic_mm.errors import UserError
from medic_mm.evaluation.features import PixelEncoder
from medic_mm.quickstart.table import _evaluate
from medic_mm.registry import MODELS

COLOURS = dict(
    ant=(200, 40, 40), bee=(40, 200, 40), cat=(40, 40, 200), dog=(200, 200, 40)
)
NAMES = list(COLOURS)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Plain images, a colour for each class; ``val`` has no bee."""
    folder = tmp_path_factory.mktemp('classes')
    for split, names in (('train', NAMES), ('val', [NAMES[0], *NAMES[2:]])):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full((32, 32, 3), COLOURS[name], np.uint8) + np.uint8(i)
                Image.fromarray(pixels).save(folder / split / name / f'{i}.png')
    return folder


def dataset(loader: dict, folder: Path, split: str, classes: list | None) -> None:
    """Let a loader read ``split``; ``classes`` are what an advice said."""
    settings = dict(
        type='medic_mm.ImageFolder' if classes else 'mmpretrain.CustomDataset',
        data_root=str(folder / split),
        with_label=True,
        serialize_data=False,
        pipeline=loader['dataset']['pipeline'],
    )
    if classes:
        settings['metainfo'] = dict(classes=classes)
    loader['dataset'] = settings


def pretraining(folder: Path, classes: list | None) -> Config:
    hook = knn_hook_config(folder, k=3)
    dataset(hook['train_dataloader'], folder, 'train', classes)
    dataset(hook['test_dataloader'], folder, 'val', classes)
    settings = training_config(folder, folder / 'work', [hook])
    dataset(settings['train_dataloader'], folder, 'train', NAMES)
    settings['data_preprocessor'] = dict(
        type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3
    )
    settings['train_cfg']['max_epochs'] = 1
    return Config(settings)


def classifier(folder: Path, train: list | None, rest: list | None) -> Config:
    cfg = classifier_config(folder)
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = 4
    cfg.val_dataloader = cfg.test_dataloader.to_dict()
    cfg.val_cfg, cfg.val_evaluator = dict(), cfg.test_evaluator
    cfg.default_hooks = {}
    dataset(cfg.train_dataloader, folder, 'train', train)
    dataset(cfg.val_dataloader, folder, 'val', rest)
    dataset(cfg.test_dataloader, folder, 'val', rest)
    return cfg


def knn(folder: Path, classes: list | None, work: Path) -> float:
    report = evaluate_knn(pretraining(folder, classes), 'random', ks=(3,), device='cpu')
    return next(x['top1'] for x in report['results'] if x['features'] == 'cls')


def probe(folder: Path, classes: list | None, work: Path) -> float:
    cfg = pretraining(folder, classes)
    report = evaluate_linear(cfg, 'random', ks=(3,), epochs=1, device='cpu')
    return report['knn'][0]['top1']


def hook(folder: Path, classes: list | None, work: Path) -> float:
    cfg = pretraining(folder, classes)
    runner = run_training(
        write_config(cfg, work / 'config.py'), work_dir=str(work / 'run')
    )
    return runner.message_hub.log_scalars['knn/cls_top1_k3'].data[0][0]


def quickstart(folder: Path, classes: list | None, work: Path) -> float:
    cfg = pretraining(folder, classes)
    preprocessor = MODELS.build(dict(cfg.data_preprocessor))
    return _evaluate(cfg, PixelEncoder(), preprocessor, 3)['pixels']


def validation(folder: Path, classes: list | None, work: Path) -> None:
    path = write_config(classifier(folder, classes, classes), work / 'config.py')
    run_training(path, work_dir=str(work / 'run'))


def test_data(folder: Path, classes: list | None, work: Path) -> None:
    cfg = classifier(folder, classes, classes)
    cfg.val_cfg = cfg.val_evaluator = cfg.val_dataloader = None
    run_training(write_config(cfg, work / 'config.py'), work_dir=str(work / 'run'))


test_data.__test__ = False
DOORS: list[Callable] = [knn, probe, hook, quickstart, validation, test_data]


@pytest.mark.parametrize('door', DOORS)
def test_what_is_missing_is_named_and_the_advice_gives_the_right_number(
    door, data, tmp_path
):
    with pytest.raises(UserError, match='bee only in train') as caught:
        door(data, None, tmp_path)
    advice = re.search(r'metainfo=dict\(classes=(\[.*?\])\)', str(caught.value))
    assert eval(advice[1]) == NAMES
    found = door(data, eval(advice[1]), tmp_path / 'again')
    # each image is as near to those of its own class as can be
    assert found in (None, 100.0)


def test_a_test_set_is_compared_with_what_the_checkpoint_was_trained_on(data, tmp_path):
    config = write_config(classifier(data, NAMES, NAMES), tmp_path / 'config.py')
    run_training(config, work_dir=str(tmp_path / 'run'))
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    assert checkpoint.is_file()
    metrics = run_testing(config, checkpoint, work_dir=str(tmp_path / 'test'))
    assert 0 <= metrics['accuracy/top1'] <= 100
    moved = tmp_path / 'moved'
    shutil.copytree(data / 'val', moved / 'val')
    (moved / 'val' / 'ant').rename(moved / 'val' / 'yak')
    for names, words in {
        ('bee', 'cat', 'dog', 'yak'): 'not in the data: ant; not in the .*: yak',
        None: 'test data set has 3 classes but model',
    }.items():
        cfg = classifier(data, NAMES, NAMES)
        dataset(cfg.test_dataloader, moved, 'val', names and list(names))
        other = write_config(cfg, tmp_path / f'{len(words)}.py')
        with pytest.raises(UserError, match=words):
            run_testing(other, checkpoint, work_dir=str(tmp_path / 'test'))


def test_head_and_data_are_compared_before_the_first_step(data, tmp_path):
    cfg = classifier(data, NAMES, NAMES)
    cfg.model.head.num_classes = 3
    path = write_config(cfg, tmp_path / 'config.py')
    with pytest.raises(UserError, match=r'train data set has 4 .*num_classes=4'):
        run_training(path, work_dir=str(tmp_path / 'run'))
    options = {'model.head.num_classes': 4}
    run_training(path, work_dir=str(tmp_path / 'run'), options=options)


def test_labels_of_a_list_are_compared_with_the_head(data, tmp_path):
    cfg = classifier(data, NAMES, NAMES)
    cfg.val_cfg = cfg.val_evaluator = cfg.val_dataloader = None
    cfg.test_cfg = cfg.test_evaluator = cfg.test_dataloader = None
    listing = tmp_path / 'list.txt'
    listing.write_text('train/ant/0.png 0\ntrain/dog/0.png 4\n')
    cfg.train_dataloader.dataset = dict(
        type='CustomDataset',
        data_root=str(data),
        ann_file=str(listing),
        pipeline=cfg.train_dataloader.dataset.pipeline,
    )
    path = write_config(cfg, tmp_path / 'config.py')
    with pytest.raises(UserError, match='holds class number 4, but there are 4'):
        run_training(path, work_dir=str(tmp_path / 'run'))
