"""Broken files: another image in their place, counted, named, and a limit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from images import encode, write
from mmengine.dataset import (
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
    default_collate,
)
from mmengine.registry import DATASETS, HOOKS, DefaultScope
from PIL import Image
from torch.utils.data import DataLoader, Subset

from medic_mm.engine.hooks import skipped_images_hook
from medic_mm.errors import FileError
from medic_mm.evaluation.features import PixelEncoder, extract_features


class Log:
    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)

    warning = info


class Plain(torch.nn.Module):
    def forward(self, batch, training):
        return dict(inputs=torch.stack(list(batch['inputs'])).float())


def png(value):
    return encode(Image.fromarray(np.full((8, 8, 3), value, np.uint8)), 'PNG')


def fill(folder, good, bad):
    """Class folders ``a`` and ``b`` in turns; the last files are broken."""
    files = {f'{"ab"[i % 2]}/{i:03}.png': png(i + 1) for i in range(good)}
    for i in range(good, good + bad):
        files[f'{"ab"[i % 2]}/{i:03}.png'] = b'' if i % 3 else b'not an image at all'
    return write(folder, files)


def build(folder, fixed=False, type='medic_mm.ImageFolder', **kwargs):
    load = dict(type='medic_mm.LoadReadableImage')
    if fixed:
        load = dict(type='medic_mm.FixedView', transforms=[load])
    steps = [load, dict(type='PackInputs')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(
            dict(type=type, data_root=str(folder), pipeline=steps, **kwargs)
        )


def start(loader, tmp_path, **kwargs):
    work_dir = tmp_path / 'work'
    work_dir.mkdir(exist_ok=True)
    runner = SimpleNamespace(
        train_dataloader=loader, logger=Log(), work_dir=str(work_dir), iter=0
    )
    hook = HOOKS.build(dict(type='medic_mm.SkippedImagesHook', **kwargs))
    hook.before_train(runner)
    return hook, runner


def epoch(loader, hook, runner):
    """Values of all images that were given."""
    values = []
    for number, batch in enumerate(loader):
        values += [int(sample['inputs'].unique()) for sample in batch]
        runner.iter = number
        hook.after_train_iter(runner, number)
    hook.after_train_epoch(runner)
    return values


def listed_files(runner):
    with open(f'{runner.work_dir}/left_out_images.txt', encoding='utf-8') as file:
        return [tuple(line.rstrip('\n').split('\t')) for line in file]


@pytest.mark.parametrize(
    ('workers', 'persistent', 'fixed'),
    [(0, False, True), (2, False, False), (2, True, True)],
)
def test_counts_and_names_what_it_skipped(tmp_path, workers, persistent, fixed):
    folder = fill(tmp_path / 'data', 150, 14)
    (folder / 'notes.txt').write_text('not an image')
    loader = DataLoader(
        build(folder, fixed),
        batch_size=50,
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=list,
    )
    hook, runner = start(loader, tmp_path)
    assert listed_files(runner) == [
        ('other suffix (.txt)', str(folder / 'notes.txt')),
    ]
    for _ in range(2):
        values = epoch(loader, hook, runner)
        assert len(values) == 164 and set(values) == set(range(1, 151))
    assert len(runner.logger.lines) == 1, 'the same images are named once'
    hook.after_train(runner)
    for line in runner.logger.lines:
        assert line.startswith('14 of 164 training images were unreadable and skipped')
        assert '9 empty file, 5 not an image' in line
        assert line.count('.png') == 10 and line.endswith(' and 4 more')
    rows = listed_files(runner)
    assert len(rows) == 15 and len(set(rows)) == 15
    assert ('not an image', str(folder / 'a' / '150.png')) in rows
    assert ('empty file', str(folder / 'b' / '151.png')) in rows


WRAPPERS = {
    'ConcatDataset': (lambda x, y: ConcatDataset([x, y]), 4),
    'RepeatDataset': (lambda x, y: RepeatDataset(x, 3), 2),
    'ClassBalancedDataset': (lambda x, y: ClassBalancedDataset(x, 0.1), 2),
    'Subset': (lambda x, y: Subset(y, [30, 61]), 2),
    'torch': (lambda x, y: torch.utils.data.ConcatDataset([Subset(x, [30]), y]), 3),
}


@pytest.mark.parametrize('name', WRAPPERS)
def test_data_sets_inside_of_others_are_counted(name, tmp_path):
    wrap, count = WRAPPERS[name]
    parts = [
        build(fill(tmp_path / side, 60, 2), with_label=True, type=kind)
        for side, kind in (('x', 'medic_mm.ImageFolder'), ('y', 'CustomDataset'))
    ]
    loader = DataLoader(wrap(*parts), batch_size=8, collate_fn=list)
    hook, runner = start(loader, tmp_path, max_unreadable=1)
    epoch(loader, hook, runner)
    assert runner.logger.lines[0].startswith(f'{count} of ')
    broken = {path for _, path in listed_files(runner)}
    assert len(broken) == count
    assert all(path.endswith(('a/060.png', 'b/061.png')) for path in broken)


def test_says_so_when_all_is_well(tmp_path):
    loader = DataLoader(build(fill(tmp_path / 'd', 4, 0)), 4, collate_fn=list)
    hook, runner = start(loader, tmp_path)
    epoch(loader, hook, runner)
    hook.after_train(runner)
    assert runner.logger.lines == ['All requested training images were readable.']


@pytest.mark.parametrize(('good', 'bad'), [(1, 31), (30, 4)])
def test_stops_above_the_share_after_an_epoch(good, bad, tmp_path):
    dataset = build(fill(tmp_path / 'data', good, bad))
    dataset.max_refetch = 10_000
    loader = DataLoader(dataset, 4, collate_fn=list)
    hook, runner = start(loader, tmp_path)
    with pytest.raises(FileError, match=r'unreadable|in a row cannot be read'):
        epoch(loader, hook, runner)


def test_the_share_is_a_setting_and_counts_images_read_so_far(tmp_path):
    loader = DataLoader(build(fill(tmp_path / 'data', 18, 2)), 4, collate_fn=list)
    hook, runner = start(loader, tmp_path, max_unreadable=0.1)
    epoch(loader, hook, runner)  # 2 of 20
    hook, runner = start(loader, tmp_path, max_unreadable=0.099)
    with pytest.raises(FileError) as error:
        epoch(loader, hook, runner)
    assert str(error.value).startswith(
        '2 of the 20 training images read so far are unreadable, more than '
        'max_unreadable=0.099 of SkippedImagesHook allows, such as '
    )
    with pytest.raises(ValueError, match='max_unreadable=nan of SkippedImagesHook'):
        start(loader, tmp_path, max_unreadable=float('nan'))


def test_is_looked_at_every_thousand_images(tmp_path):
    loader = DataLoader(
        build(fill(tmp_path / 'data', 30, 30)), batch_size=300, collate_fn=list
    )
    hook, runner = start(loader, tmp_path)
    list(loader)
    for runner.iter in range(3):
        hook.after_train_iter(runner, runner.iter)
    runner.iter = 3  # 1,200 images
    with pytest.raises(FileError, match='30 of the 60 training images'):
        hook.after_train_iter(runner, runner.iter)


def test_a_folder_of_broken_images_ends_with_a_sentence(tmp_path):
    dataset = build(fill(tmp_path / 'data', 0, 5))
    loader = DataLoader(dataset, 4, collate_fn=list)
    start(loader, tmp_path)
    with pytest.raises(FileError) as error:
        list(loader)
    assert str(error.value).startswith('100 images in a row cannot be read, the last: ')
    assert '\n' not in str(error.value)


def test_processes_are_counted_together(tmp_path, monkeypatch):
    loader = DataLoader(build(fill(tmp_path / 'data', 60, 4)), 8, collate_fn=list)
    hook, runner = start(loader, tmp_path)

    def other_process(marks, op):
        assert op == 'max' and marks is not hook.marks
        marks[0] = 5

    monkeypatch.setattr(skipped_images_hook, 'all_reduce', other_process)
    epoch(loader, hook, runner)
    assert runner.logger.lines[0].startswith('5 of 64 training images were unreadable')


@pytest.mark.parametrize(
    ('workers', 'kwargs'), [(0, dict(test_mode=True)), (0, {}), (1, {})]
)
def test_evaluation_ends_and_names_the_file(workers, kwargs, tmp_path):
    folder = fill(tmp_path / 'data', 6, 1)
    dataset = build(folder, with_label=True, **kwargs)
    loader = DataLoader(dataset, 2, num_workers=workers, collate_fn=default_collate)
    with pytest.raises(FileError) as error:
        extract_features(PixelEncoder(), Plain(), loader)
    assert str(error.value).startswith(
        f'the image {folder}/a/006.png cannot be read: it is not an image of a known '
        'format; repair or remove the file'
    )
    assert str(error.value).endswith('counts such files and goes on)')
    assert '\n' not in str(error.value)


def test_a_training_that_counts_nothing_replaces_nothing(tmp_path):
    dataset = build(fill(tmp_path / 'data', 6, 1))
    with pytest.raises(FileError, match=r'006\.png cannot be read'):
        [dataset[i] for i in range(7)]


@pytest.mark.faults
def test_workers_that_are_spawned_mark_as_well(tmp_path):
    loader = DataLoader(
        build(fill(tmp_path / 'data', 30, 2)),
        batch_size=8,
        num_workers=1,
        collate_fn=list,
        multiprocessing_context='spawn',
    )
    hook, runner = start(loader, tmp_path)
    epoch(loader, hook, runner)
    assert runner.logger.lines[0].startswith('2 of 32 training images were unreadable')
