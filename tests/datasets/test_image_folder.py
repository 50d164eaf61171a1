"""Folders of images: which files are taken, and what is refused."""

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image


def build(**kwargs):
    return DATASETS.build(dict(type='medic_mm.ImageFolder', pipeline=[], **kwargs))


@pytest.fixture
def folder(tmp_path):
    for name in ('cat/b.png', 'cat/a.png', 'cat/c.png', 'dog/d.jpg', 'dog/x/e.jpg'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    (tmp_path / 'dog' / 'notes.txt').write_text('not an image')
    return tmp_path


def names(dataset, folder):
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [
        (str(i['img_path']).split(f'{folder}/')[1], i.get('gt_label')) for i in infos
    ]


def test_takes_every_image_without_labels(folder):
    found = names(build(data_root=str(folder)), folder)
    assert sorted(found) == [
        ('cat/a.png', None),
        ('cat/b.png', None),
        ('cat/c.png', None),
        ('dog/d.jpg', None),
        ('dog/x/e.jpg', None),
    ]


def test_takes_folders_as_classes(folder):
    dataset = build(data_root=str(folder), with_label=True)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert [label for _, label in names(dataset, folder)] == [0, 0, 0, 1, 1]


def test_keeps_the_first_images_of_each_class(folder):
    dataset = build(data_root=str(folder), with_label=True, per_class=2)
    assert names(dataset, folder) == [
        ('cat/a.png', 0),
        ('cat/b.png', 0),
        ('dog/d.jpg', 1),
        ('dog/x/e.jpg', 1),
    ]


def test_refuses_a_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='nowhere does not exist: set data_root'
    ):
        build(data_root=str(tmp_path / 'nowhere'))


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'holds no images .*\.jpg'):
        build(data_root=str(tmp_path))


def test_refuses_labels_without_sub_folders(folder):
    with pytest.raises(ValueError, match='no sub-folders to take as classes'):
        build(data_root=str(folder / 'cat'), with_label=True)


def test_refuses_a_class_limit_without_labels(folder):
    with pytest.raises(ValueError, match='per_class=2 needs labels'):
        build(data_root=str(folder), per_class=2)
