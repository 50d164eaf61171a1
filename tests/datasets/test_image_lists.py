"""Lists of images: what is sound is read right, the rest named by file and line."""

from __future__ import annotations

import pytest
from images import encode, picture, write
from mmengine.registry import DATASETS
from PIL import Image

from medic_mm.datasets.image_files import parse_list
from medic_mm.errors import FileError, MissingFileError

PATHS = ['a/0.png', 'b/my photo, 2.png', '1.png']
PLAIN = [(path, None) for path in PATHS]
LABELLED = list(zip(PATHS, (0, 2, 11), strict=True))


@pytest.mark.parametrize(
    ('text', 'right'),
    [
        ('a/0.png\nb/my photo, 2.png\n1.png', PLAIN),
        ('a/0.png\r\nb/my photo, 2.png\r\n1.png\r\n\r\n', PLAIN),
        ('\ufeffa/0.png\n\n  \nb/my photo, 2.png \n1.png\n', PLAIN),
        ('a/0.png 0\nb/my photo, 2.png 2\n1.png 11\n\n', LABELLED),
        ('a/0.png\t0\nb/my photo, 2.png\t 2\n\t1.png  11\t\n', LABELLED),
        ('\ufeffa/0.png 0\r\nb/my photo, 2.png 2\r1.png 11', LABELLED),
    ],
)
def test_sound_lists(text, right):
    found = parse_list(text.encode(), 'list.txt', right is LABELLED)
    assert found == right


@pytest.mark.parametrize(
    ('text', 'with_label', 'sentence'),
    [
        ('a.png 0\nb.png,1\n', True, r"line 2 of list\.txt \('b\.png,1'\) has a comma"),
        ('a.png; 1', True, r'line 1 .* has a comma or semicolon before the label: put'),
        ('a.png 0\n\nb.png\n', True, r'line 3 .* is not a path and a whole number'),
        ('a.png cat', True, 'is not a path and a whole number with a space between'),
        ('a.png 1.0', True, 'is not a path and a whole number with a space between'),
        ('7', True, 'is not a path and a whole number with a space between'),
        ('a.png 4', True, r'has the label 4: labels are 0 to 3'),
        ('a.png -1', True, r'has the label -1: labels are 0 to 3'),
        ('a.png\nb.PNG 0', False, r'line 2 .* has a label, but with_label=False'),
        ('a.png\t0', False, 'has a label, but with_label=False: set with_label=True'),
        ('a.png,0', False, 'has a label, but with_label=False: set with_label=True'),
        ('\n \n', False, r'the list list\.txt names no images'),
        ('', True, r'the list list\.txt names no images'),
    ],
)
def test_other_lines_are_named(text, with_label, sentence):
    with pytest.raises(FileError, match=sentence):
        parse_list(text.encode(), 'list.txt', with_label, classes=4)


def test_text_of_another_encoding():
    with pytest.raises(FileError, match=r'list\.txt is not text in UTF-8 .* byte 0'):
        parse_list('ä.png 0'.encode('utf-16'), 'list.txt', True)


def build(folder, text, **kwargs):
    (folder / 'list.txt').write_text(text, encoding='utf-8')
    return DATASETS.build(
        dict(
            type='medic_mm.ImageFolder',
            data_root=str(folder),
            ann_file='list.txt',
            pipeline=[],
            **kwargs,
        )
    )


def test_a_data_set_of_a_list(tmp_path):
    data = encode(Image.fromarray(picture(4, 4)), 'PNG')
    folder = write(tmp_path, dict.fromkeys(PATHS, data))
    text = '\ufeff' + '\n'.join(f'{path}\t{label}' for path, label in LABELLED) + '\n\n'
    dataset = build(folder, text, with_label=True)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    found = [(info['img_path'], info['gt_label']) for info in infos]
    assert found == [(str(folder / path), label) for path, label in LABELLED]
    with pytest.raises(FileError, match=r'line 1 of .*list\.txt .* with_label=False'):
        build(folder, text)
    with pytest.raises(FileError, match='has the label 2: labels are 0 to 1'):
        build(folder, text, with_label=True, metainfo=dict(classes=['x', 'y']))
    (folder / 'list.txt').unlink()
    with pytest.raises(MissingFileError, match=r'the list .*gone\.txt does not exist'):
        DATASETS.build(
            dict(type='medic_mm.ImageFolder', data_root='x', ann_file='gone.txt')
        )
