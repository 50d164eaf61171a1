"""Folders of images and masks: what does not fit is named before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from images import encode, picture, write
from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from PIL import Image

from medic_mm.datasets import segmentation_files
from medic_mm.datasets.segmentation_files import check_image_suffixes, check_masks
from medic_mm.engine.hooks import SegmentationLabelsHook
from medic_mm.errors import FileError, MissingFileError, UserError

pytest.importorskip('mmseg.datasets')

JPEG = encode(Image.fromarray(picture(20, 30)), 'JPEG')
HEAD = SimpleNamespace(num_classes=3, ignore_index=255)
CLASSES = dict(classes=('sky', 'road', 'tree'), palette=[[0] * 3] * 3)


def mask(*values: int, size: tuple[int, int] = (20, 30), dtype=np.uint8) -> bytes:
    pixels = np.resize(np.array(values, dtype), size)
    return encode(Image.fromarray(pixels), 'PNG')


def data(folder: Path, **masks: bytes) -> Path:
    for name, content in masks.items():
        write(folder, {f'img/{name}.jpg': JPEG, f'ann/{name}.png': content})
    return folder


def settings(folder: Path, **kwargs) -> dict:
    return dict(
        type='BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        metainfo=CLASSES,
        **kwargs,
    )


def look(folder: Path, head: SimpleNamespace = HEAD, **kwargs) -> None:
    """As the hook does before training."""
    init_default_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(settings(folder, **kwargs))
    loader = SimpleNamespace(dataset=ConcatDataset([dataset]))
    runner = SimpleNamespace(
        model=SimpleNamespace(decode_head=head),
        train_dataloader=loader,
        val_loop=SimpleNamespace(dataloader=loader),
        test_dataloader=loader,
    )
    SegmentationLabelsHook().before_train(runner)


def test_sound_masks_pass(tmp_path):
    look(data(tmp_path, a=mask(0, 1, 255), b=mask(2, 2)))
    palette = Image.fromarray(np.resize(np.array([0, 1], np.uint8), (20, 30)), 'P')
    palette.putpalette([200] * 768)
    look(data(tmp_path, c=encode(palette, 'PNG')))


def test_reduced_labels_and_turned_images_pass(tmp_path):
    folder = data(tmp_path, a=mask(0, 1, 2, 3, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.fromarray(picture(30, 20)), 'JPEG', exif=exif)
    write(folder, {'img/b.jpg': turned, 'ann/b.png': mask(0, 3)})
    look(folder, reduce_zero_label=True)
    with pytest.raises(FileError, match=r'a\.png holds class 3 but .*num_classes=3'):
        look(folder)


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (mask(0, 3), r'holds class 3 but model\.decode_head has num_classes=3'),
        (encode(Image.fromarray(picture(20, 30)), 'PNG'), 'has 3 channels: a mask has'),
        (mask(0, 1, size=(10, 15)), r'has 15 x 10 pixels but its image .*a\.jpg 30 x'),
        (mask(0, 300, dtype=np.uint16), 'holds the value 300: values are 0 to 255'),
        (b'torn', 'cannot be read'),
    ],
    ids=['class', 'channels', 'size', 'value', 'torn'],
)
def test_a_mask_that_does_not_fit_is_named(content, sentence, tmp_path):
    folder = data(tmp_path, a=content, b=mask(0, 1))
    with pytest.raises(FileError, match=rf'the mask .*a\.png {sentence}'):
        look(folder)


def test_black_and_white_masks(tmp_path):
    folder = data(tmp_path, a=mask(0, 255), b=mask(255, 0), c=mask(0))
    with pytest.raises(FileError, match=r'ann/.\.png, as .* 0 and 255 alone, .*255'):
        look(folder)
    for name in 'abc':  # as the sentence says
        write(folder, {f'ann/{name}.png': mask(0, 1)})
    look(folder)


@pytest.mark.parametrize('kwargs', [{}, dict(reduce_zero_label=True)])
def test_ignored_pixels_alone(kwargs, tmp_path):
    value = 0 if kwargs else 255
    with pytest.raises(FileError, match='holds ignored pixels alone'):
        look(data(tmp_path, a=mask(value), b=mask(value)), **kwargs)


def test_images_without_a_mask(tmp_path):
    folder = data(tmp_path, a=mask(0, 1), b=mask(0, 1), c=mask(0, 1))
    (folder / 'ann' / 'b.png').unlink()
    (folder / 'ann' / 'c.png').unlink()
    with pytest.raises(
        MissingFileError, match=r'2 of 3 training .* first is .*/b\.png'
    ):
        look(folder)


def test_many_masks_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation_files, 'MASKS_LOOKED_AT', 2)
    read = []
    original = segmentation_files._read_mask
    monkeypatch.setattr(
        segmentation_files, '_read_mask', lambda x: read.append(x) or original(x)
    )
    look(data(tmp_path, **{f'm{i}': mask(0, 1) for i in range(9)}))
    assert len(read) == 4, 'two of training, two of validation'


def test_suffixes_in_other_letters(tmp_path):
    write(tmp_path, {'img/a.JPG': JPEG, 'img/b.jpg': JPEG, 'ann/a.png': mask(0)})
    with pytest.raises(UserError, match=r"such as a\.JPG: img_suffix='\.jpg' is in"):
        check_image_suffixes(settings(tmp_path), 'mmseg')
    (tmp_path / 'img' / 'b.jpg').unlink()
    wrapped = dict(type='RepeatDataset', times=2, dataset=settings(tmp_path))
    with pytest.raises(UserError, match=r"or set img_suffix='\.JPG'"):
        check_image_suffixes(wrapped, 'mmseg')
    check_image_suffixes(settings(tmp_path, img_suffix='.JPG'), 'mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert len(DATASETS.build(settings(tmp_path, img_suffix='.JPG'))) == 1


def test_no_images_of_the_suffix(tmp_path):
    write(tmp_path, {'img/a.png': JPEG})
    with pytest.raises(MissingFileError, match=r"img_suffix='\.jpg', but a\.png: set"):
        check_image_suffixes(settings(tmp_path), 'mmseg')
    with pytest.raises(MissingFileError, match='nowhere/img does not exist: set data_'):
        check_image_suffixes(settings(tmp_path / 'nowhere'), 'mmseg')


def test_other_data_sets_are_not_looked_at(tmp_path):
    check_image_suffixes(None)
    check_image_suffixes(dict(type='medic_mm.ImageFolder', data_root='nowhere'))
    check_image_suffixes(dict(settings(tmp_path), ann_file='list.txt'), 'mmseg')
    check_masks(SimpleNamespace(), 'training', HEAD)
