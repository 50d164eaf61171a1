"""Class names decide the numbers of folders, and data sets agree on them."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image

from medic_mm.datasets.class_lists import (
    ClassList,
    check_settings,
    compare_classes,
    require_known,
)
from medic_mm.datasets.classes import number_folders
from medic_mm.errors import UserError


@pytest.mark.parametrize(
    ('folders', 'names', 'wanted'),
    [
        (['bee', 'ant'], None, dict(ant=0, bee=1)),
        (['ant', 'bee', 'cat'], ['cat', 'ant', 'bee'], dict(cat=0, ant=1, bee=2)),
        (['ant', 'cat'], ['ant', 'bee', 'cat'], dict(ant=0, cat=2)),
        (['cat'], ['ant', 'bee', 'cat'], dict(cat=2)),
        (['2', '10'], [10, 2], {'10': 0, '2': 1}),
        (['n01', 'n02'], ['tench', 'goldfish'], dict(n01=0, n02=1)),
        # words to show may be written otherwise, where they stand at their folder
        (['ant', 'bee'], ['Ant', 'Bee'], dict(ant=0, bee=1)),
        (['a_b', 'c'], ['a b', 'C'], dict(a_b=0, c=1)),
        (['n01', 'n02'], ['crane', 'crane'], dict(n01=0, n02=1)),
    ],
)
def test_numbers_of_folders(folders, names, wanted):
    assert number_folders(folders, names) == wanted


@pytest.mark.parametrize(
    ('folders', 'names', 'words'),
    [
        (['ant', 'bee', 'dog'], ['ant', 'bee', 'cat'], 'class folders dog, which'),
        (['ant', 'bee'], ['ant'], 'class folders bee, which'),
        (['n01', 'n02', 'n03'], ['tench', 'goldfish'], 'holds 3 class folders'),
        (
            ['n01'],
            ['tench', 'goldfish'],
            r'holds 1 class folders \(n01\).* has 2 other',
        ),
        (['ant', 'bee'], ['Bee', 'Ant'], "name the folder ant of data 'Bee'"),
        (['ant', 'bee'], ['ant', 'bee', 'ant'], 'names ant more than once'),
        (['ant'], [], 'names no class'),
        (['ant'], 'names.txt', 'text file that exists'),
    ],
)
def test_refuses_names_that_do_not_fit(folders, names, words):
    with pytest.raises(UserError, match=words):
        number_folders(folders, names, 'data')


def write(folder: Path, *classes: str, count: int = 2) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((4, 4, 3), ord(name[0]), np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{i}.png')
    return folder


def build(folder: Path, kind: str = 'medic_mm.ImageFolder', **settings):
    return DATASETS.build(
        dict(
            type=kind,
            data_root=str(folder),
            with_label=True,
            pipeline=[],
            serialize_data=False,
            **settings,
        )
    )


def named(dataset) -> dict[str, str]:
    """The name that each folder's images are given."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    classes = dataset.metainfo['classes']
    return {Path(x['img_path']).parent.name: classes[x['gt_label']] for x in infos}


@pytest.mark.parametrize('kind', ['metainfo', 'classes', 'file'])
def test_images_have_the_name_of_their_folder(tmp_path, kind):
    folder = write(tmp_path / 'data', 'ant', 'bee', 'cat')
    names = ['cat', 'ant', 'bee']
    listing = tmp_path / 'names.txt'
    listing.write_text('\n'.join(names))
    settings = {
        'metainfo': dict(metainfo=dict(classes=names)),
        'classes': dict(classes=names),
        'file': dict(metainfo=dict(classes=str(listing))),
    }
    dataset = build(folder, **settings[kind])
    assert named(dataset) == dict(ant='ant', bee='bee', cat='cat')
    assert list(dataset.metainfo['classes']) == names
    assert dataset.class_to_idx == dict(cat=0, ant=1, bee=2)


def heard(action) -> str:
    """What the current log gets."""
    logger, lines = MMLogger.get_current_instance(), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel('INFO')
    try:
        action()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return '\n'.join(lines)


def test_the_log_tells_words_to_show_and_classes_without_images(tmp_path):
    folder = write(tmp_path, 'n01', 'n02')
    (tmp_path / 'n03').mkdir()
    words = dict(classes=['tench', 'goldfish', 'shark'])
    log = heard(lambda: build(folder, metainfo=words))
    assert 'n01 is tench, n02 is goldfish, n03 is shark' in log
    assert 'no images of 1 of 3 classes: shark' in log
    log = heard(lambda: build(folder, metainfo=dict(classes=['n03', 'n02', 'n01'])))
    assert 'tench' not in log and 'no images of 1 of 3 classes: n03' in log


def test_the_host_is_not_let_number_names_by_position(tmp_path):
    folder = write(tmp_path, 'ant', 'bee', 'cat')
    host = dict(type='mmpretrain.CustomDataset', data_root=str(folder), pipeline=[])
    check_settings(host)
    check_settings(dict(host, metainfo=dict(classes=['ant', 'bee', 'cat'])))
    check_settings(dict(host, metainfo=dict(classes=['A', 'B', 'C'])))
    for names, words in {
        ('cat', 'ant', 'bee'): "use type='medic_mm.ImageFolder'",
        ('ant', 'bee', 'cat', 'dog'): "use type='medic_mm.ImageFolder'",
        ('ant', 'bee', 'dog'): 'class folders cat, which',
        ('A', 'B'): 'holds 3 class folders',
    }.items():
        wrong = dict(host, metainfo=dict(classes=names))
        for settings in (
            wrong,
            dict(type='RepeatDataset', times=2, dataset=wrong),
            dict(type='ConcatDataset', datasets=[host, wrong]),
        ):
            with pytest.raises(UserError, match=words):
                check_settings(settings)
    # and where it was built all the same
    built = build(folder, 'mmpretrain.CustomDataset', classes=['cat', 'ant', 'bee'])
    with pytest.raises(UserError, match='CustomDataset numbers the class folders'):
        compare_classes({'train': built})


HOST = 'mmpretrain.CustomDataset'


@pytest.mark.parametrize('kinds', [(HOST, HOST), ('medic_mm.ImageFolder', HOST)])
@pytest.mark.parametrize('wrapped', [False, True])
def test_a_missing_folder_is_named_and_the_advice_mends_it(tmp_path, kinds, wrapped):
    train = build(write(tmp_path / 'train', 'ant', 'bee', 'cat'), kinds[0])
    val = build(write(tmp_path / 'val', 'ant', 'cat'), kinds[1])
    pair = {'train': train, 'validation': val}
    if wrapped:
        pair['train'] = RepeatDataset(train, 2)
        pair['validation'] = ConcatDataset([val, val])
    with pytest.raises(UserError, match='3 in train, 2 in validation') as caught:
        compare_classes(pair)
    sentence = str(caught.value)
    assert 'bee only in train' in sentence
    assert "type='medic_mm.ImageFolder', with_label=True" in sentence
    classes = re.search(r'classes=(\[.*?\])', sentence)
    names = eval(classes[1])
    pair = {
        name: build(tmp_path / folder, metainfo=dict(classes=names))
        for name, folder in (('train', 'train'), ('validation', 'val'))
    }
    assert compare_classes(pair) == 3
    assert named(pair['train']) == dict(ant='ant', bee='bee', cat='cat')
    assert named(pair['validation']) == dict(ant='ant', cat='cat')


def test_parts_of_a_data_set_are_compared_too(tmp_path):
    one = build(write(tmp_path / 'one', 'ant', 'bee'))
    two = build(write(tmp_path / 'two', 'ant', 'cow'))
    both = ConcatDataset([one, two], ignore_keys=['classes'])
    with pytest.raises(UserError, match=r'parts of the train data set.*bee only'):
        compare_classes({'train': both})


def test_words_to_show_are_compared_by_their_folders(tmp_path):
    words = dict(metainfo=dict(classes=['tench', 'goldfish']))
    train = build(write(tmp_path / 'train', 'n01', 'n02'), **words)
    assert compare_classes({'train': train, 'test': build(tmp_path / 'train')}) == 2
    other = build(write(tmp_path / 'other', 'n02', 'n03'), **words)
    with pytest.raises(UserError, match='n01 only in train, n03 only in test'):
        compare_classes({'train': train, 'test': other})
    swapped = build(tmp_path / 'train', metainfo=dict(classes=['n02', 'n01']))
    with pytest.raises(UserError, match='n01 is number 0 in train and 1 in test'):
        compare_classes({'train': train, 'test': swapped})


def listed(folder: Path, *labels: int, **settings):
    listing = folder / f'{"".join(map(str, labels))}.txt'
    listing.write_text(''.join(f'{i}.png {x}\n' for i, x in enumerate(labels)))
    return build(folder, ann_file=listing.name, **settings)


def test_sets_of_numbers_are_compared_by_count(tmp_path):
    folders = build(write(tmp_path / 'train', 'n01', 'n02'))
    numbers = listed(tmp_path, 0, 1, 1)
    assert compare_classes({'train': folders, 'test': numbers}) == 2
    assert compare_classes({'train': numbers}) is None
    words = dict(metainfo=dict(classes=['tench', 'goldfish']))
    assert compare_classes({'a': folders, 'b': listed(tmp_path, 1, **words)}) == 2
    with pytest.raises(UserError, match='holds class number 2, but there are 2'):
        compare_classes({'train': folders, 'test': listed(tmp_path, 0, 2)})
    three = dict(metainfo=dict(classes=['a', 'b', 'c']))
    with pytest.raises(UserError, match='2 in train, 3 in test'):
        compare_classes({'train': folders, 'test': listed(tmp_path, 0, **three)})
    log = heard(lambda: compare_classes({'a': folders, 'b': listed(tmp_path, 1)}))
    assert 'the b data set has no images of 1 of 2 classes: 0' in log


def test_a_checkpoint_remembers_its_classes(tmp_path):
    words = dict(metainfo=dict(classes=['tench', 'goldfish']))
    data = build(write(tmp_path / 'data', 'n01', 'n02'), **words)
    trained = ClassList.of_checkpoint(data.metainfo)
    assert (trained.names, trained.keys) == (('tench', 'goldfish'), ('n01', 'n02'))
    require_known(
        ClassList(('n01', 'n02'), ('n01', 'n02'), 'ImageFolder'), trained, 'x'
    )
    with pytest.raises(UserError, match=r'not in the data: n02; not in .*: n03'):
        require_known(ClassList(('n01', 'n03'), ('n01', 'n03'), 'I'), trained, 'test')
    # the host's ImageNet has words of its own
    from mmpretrain.datasets import ImageNet

    imagenet = ClassList.of_checkpoint(ImageNet.METAINFO)
    folders = tuple(f'n{i:08}' for i in range(1000))
    require_known(ClassList(folders, folders, 'ImageFolder'), imagenet, 'test')
    with pytest.raises(UserError, match='trained on other classes'):
        require_known(ClassList(folders[1:], folders[1:], 'I'), imagenet, 'test')
