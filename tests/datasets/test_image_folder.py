"""Folders of images: which files are taken, and what is refused."""

import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from medic_mm.errors import UserError


def build(**kwargs):
    return DATASETS.build(
        dict(type='medic_mm.ImageFolder', pipeline=[], serialize_data=False, **kwargs)
    )


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


@pytest.fixture
def many(tmp_path):
    """Two classes of 40 and 30 images, and one of two."""
    for name, count in (('cat', 40), ('dog', 30), ('yak', 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(
                tmp_path / name / f'{i:02}.png'
            )
    return tmp_path


def test_draws_images_of_each_class(many):
    drawn = names(build(data_root=str(many), with_label=True, per_class=8), many)
    counts = Counter(label for _, label in drawn)
    assert counts == {0: 8, 1: 8, 2: 2}
    assert drawn == sorted(drawn)
    again = build(data_root=str(many), with_label=True, per_class=8)
    other = build(data_root=str(many), with_label=True, per_class=8, draw_seed=1)
    assert names(again, many) == drawn != names(other, many)
    # neither from the head of a class nor at equal distances
    places = [int(path[4:6]) for path, label in drawn if label == 0]
    assert max(places) >= 20
    assert len({b - a for a, b in pairwise(places)}) > 2
    # fewer are among more, and another class changes nothing
    more = build(data_root=str(many), with_label=True, per_class=20)
    assert set(drawn) < set(names(more, many))
    shutil.rmtree(many / 'cat')
    rest = names(build(data_root=str(many), with_label=True, per_class=8), many)
    assert [x for x, _ in rest] == [x for x, label in drawn if label]


def test_first_images_on_demand(many):
    first = build(data_root=str(many), with_label=True, per_class=2, draw_seed=None)
    wanted = ['cat/00.png', 'cat/01.png', 'dog/00.png', 'dog/01.png']
    assert [x for x, _ in names(first, many)][:4] == wanted


@pytest.mark.parametrize('count', [1, 2, 9, 50, 99])
def test_a_number_of_images_is_drawn_of_each_class_alike(many, count):
    drawn = names(build(data_root=str(many), with_label=True, indices=count), many)
    counts = [sum(x == label for _, x in drawn) for label in range(3)]
    assert sum(counts) == len(drawn) == min(count, 72)
    if count > 6:  # the class of two is there whole, the others share what is left
        assert counts[2] == 2 and abs(counts[0] - counts[1]) <= (
            1 if count < 62 else 10
        )
    plain = names(build(data_root=str(many), indices=count), many)
    assert len(plain) == min(count, 72)
    if count == 9:
        assert {path[:3] for path, _ in plain} >= {'cat', 'dog'}


def test_numbers_of_images_stay_what_they_are(many):
    found = names(build(data_root=str(many), indices=[3, 50]), many)
    assert [path for path, _ in found] == ['cat/03.png', 'dog/10.png']


@pytest.mark.parametrize('setting', ['per_class', 'indices'])
def test_refuses_less_than_one_image(many, setting):
    with pytest.raises(UserError, match=f'{setting}=0 of ImageFolder'):
        build(data_root=str(many), with_label=True, **{setting: 0})


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
