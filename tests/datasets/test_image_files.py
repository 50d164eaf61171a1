"""Which files below a folder are images: one answer for training and all tools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.registry import DATASETS

from medic_mm.datasets.image_files import (
    HIDDEN,
    LOOP,
    NO_CLASS,
    NO_FILE,
    NO_TARGET,
    find_image_files,
    find_labelled_files,
    is_image_name,
    name_left_out,
)
from medic_mm.errors import FileError, MissingFileError
from medic_mm.settings.images import find_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    return folder


def by_training(folder: Path) -> list[str]:
    dataset = DATASETS.build(
        dict(type='medic_mm.ImageFolder', data_root=str(folder), pipeline=[])
    )
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def by_tools(folder: Path) -> list[str]:
    return [str(path) for path in find_images([folder], 10**9)]


def by_labels(folder: Path) -> list[str]:
    pairs, _ = find_labelled_files(folder)
    return [str(folder / path) for path, _ in pairs]


READERS = [by_training, by_tools]


@pytest.mark.parametrize('read', READERS)
def test_suffixes_in_small_and_capital_letters(read, tmp_path):
    names = 'a.png b.webp c.tiff d.JPG e.jfif f.TIF g.Ppm h.pgm i.bmp j.jpeg k.gif'
    touch(tmp_path, *names.split(), 'l.txt', 'm.heic', 'n', 'png')
    assert [Path(path).name for path in read(tmp_path)] == names.split()


@pytest.mark.parametrize('read', [*READERS, by_labels])
def test_links_are_followed_and_loops_end(read, tmp_path):
    data = touch(tmp_path / 'data', 'cat/1.png', 'cat/in/2.png')
    touch(tmp_path / 'else', 'ant/3.png', '4.png')
    (data / 'ant').symlink_to(tmp_path / 'else' / 'ant')
    (data / 'cat' / '4.png').symlink_to(tmp_path / 'else' / '4.png')
    (data / 'cat' / 'again').symlink_to(data)
    (data / 'again').symlink_to('.')
    (data / 'self').symlink_to('self')
    (data / 'gone.png').symlink_to('nowhere.png')
    names = ['ant/3.png', 'cat/1.png', 'cat/4.png', 'cat/in/2.png']
    assert read(data) == [str(data / name) for name in names]
    found = find_image_files(data)
    assert found.left_out == {
        LOOP: ['again', 'cat/again'],
        NO_TARGET: ['gone.png', 'self'],
    }
    assert found.folders == ['ant', 'cat']


def test_two_folders_that_link_to_each_other(tmp_path):
    touch(tmp_path, 'a/1.png', 'b/2.png')
    (tmp_path / 'a' / 'b').symlink_to(tmp_path / 'b')
    (tmp_path / 'b' / 'a').symlink_to(tmp_path / 'a')
    found = find_image_files(tmp_path)
    assert found.files == ['a/1.png', 'a/b/2.png', 'b/2.png', 'b/a/1.png']
    assert found.left_out == {LOOP: ['a/b/a', 'b/a/b']}


@pytest.mark.parametrize('read', [*READERS, by_labels])
def test_hidden_and_system_files(read, tmp_path):
    hidden = [
        '.ipynb_checkpoints/a-checkpoint.png',
        '__MACOSX/cat/._a.png',
        'cat/._a.png',
        'cat/.ipynb_checkpoints/a.png',
        'cat/Thumbs.db',
        'cat/@eaDir/a.png',
        '.DS_Store',
    ]
    touch(tmp_path, 'cat/a.png', *hidden)
    assert read(tmp_path) == [str(tmp_path / 'cat' / 'a.png')]
    found = find_image_files(tmp_path)
    assert found.folders == ['cat']
    assert set(found.left_out) == {HIDDEN} and len(found.left_out[HIDDEN]) == 7


def test_a_hidden_folder_can_be_asked_for(tmp_path):
    touch(tmp_path / '.cache', 'a.png')
    assert find_image_files(tmp_path / '.cache').files == ['a.png']


def test_images_of_no_class_are_named(tmp_path):
    touch(tmp_path, 'a-b/1.png', 'a/1.png', 'a/x/2.png', '3.png', 'empty/x.txt')
    pairs, found = find_labelled_files(tmp_path)
    assert pairs == [('a/1.png', 'a'), ('a/x/2.png', 'a'), ('a-b/1.png', 'a-b')]
    assert found.folders == ['a', 'a-b', 'empty']
    assert found.left_out == {
        NO_CLASS: ['3.png'],
        'other suffix (.txt)': ['empty/x.txt'],
    }


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    touch(tmp_path, *(f'{i}.txt' for i in range(12)), '.x.png', 'a.png')
    os.mkfifo(tmp_path / 'pipe.png')
    found = find_image_files(tmp_path)
    assert found.files == ['a.png'] and found.left_out[NO_FILE] == ['pipe.png']
    said = name_left_out(found.left_out, tmp_path, most=3)
    assert said.startswith(f'14 files or folders below {tmp_path} are left out (12 ')
    assert '12 other suffix (.txt), 1 hidden or system file, 1 neither' in said
    assert said.endswith('.x.png, 0.txt, 1.txt and 11 more')
    assert name_left_out({}, tmp_path) == ''


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, 'a/1.png', 'b/2.png')
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith('b'):
            raise PermissionError(13, 'Permission denied', folder)
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(FileError, match=r'/b cannot be read \(Permission denied\)'):
        find_image_files(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(MissingFileError, match='nowhere does not exist'):
        find_image_files(tmp_path / 'nowhere')


def test_names():
    assert is_image_name('a/B.JpEg') and is_image_name('x.data', ['.data'])
    assert not is_image_name('a/._b.jpg') and not is_image_name('jpg')
