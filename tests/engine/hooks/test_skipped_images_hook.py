"""Broken files: another image in their place, marks across workers, names told."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, HOOKS, DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from medic_mm.datasets.transforms import LoadReadableImage


class Log:
    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)

    warning = info


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        pixels = np.full((8, 8, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    (tmp_path / '2.png').write_bytes(b'not an image at all')
    (tmp_path / '4.png').write_bytes(b'')
    return tmp_path


def build(folder, wrapped=False, **kwargs):
    load = dict(type='medic_mm.LoadReadableImage')
    if wrapped:
        load = dict(type='medic_mm.FixedView', transforms=[load])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(
            dict(
                type='medic_mm.ImageFolder',
                data_root=str(folder),
                pipeline=[load, dict(type='PackInputs')],
                **kwargs,
            )
        )


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('wrapped', [False, True])
def test_counts_and_names_what_it_skipped(folder, workers, wrapped):
    dataset = build(folder, wrapped)
    loader = DataLoader(dataset, batch_size=6, num_workers=workers, collate_fn=list)
    runner = SimpleNamespace(train_dataloader=loader, logger=Log())
    hook = HOOKS.build(dict(type='medic_mm.SkippedImagesHook', max_names=1))
    hook.before_train(runner)
    for _ in range(2):
        batch = next(iter(loader))
        values = {int(sample['inputs'].unique()) for sample in batch}
        assert len(batch) == 6
        assert values <= {0, 40, 120, 200}, 'a broken image was used'
        hook.after_train_epoch(runner)
    assert len(runner.logger.lines) == 1, 'the same images are told of once'
    hook.after_train(runner)
    for line in runner.logger.lines:
        assert line.startswith('2 of 6 training images were unreadable and skipped')
        assert line.endswith(f'{folder}/2.png and 1 more')


def test_says_so_when_all_is_well(folder):
    (folder / '2.png').unlink()
    (folder / '4.png').unlink()
    loader = DataLoader(build(folder), batch_size=4, collate_fn=list)
    runner = SimpleNamespace(train_dataloader=loader, logger=Log())
    hook = HOOKS.build(dict(type='medic_mm.SkippedImagesHook'))
    hook.before_train(runner)
    next(iter(loader))
    hook.after_train_epoch(runner)
    hook.after_train(runner)
    assert runner.logger.lines == [
        'Every training image that was asked for was readable.'
    ]


def test_a_missing_file_is_an_error(folder):
    with pytest.raises(FileNotFoundError):
        LoadReadableImage()(dict(img_path=str(folder / 'gone.png')))


def test_evaluation_does_not_replace_images(folder):
    with pytest.raises(Exception, match='None'):
        build(folder, test_mode=True)[2]


def test_pixels_are_the_hosts(folder):
    loaded = LoadReadableImage()(dict(img_path=str(folder / '3.png')))
    assert torch.equal(torch.tensor(loaded['img']), torch.full((8, 8, 3), 120).byte())
