"""Bytes to RGB: right values of every mode and depth, equal at every door."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from images import broken, encode, huge_png, picture, write, zoo
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from PIL import Image

from medic_mm.cli.features import _Images
from medic_mm.datasets import decoding
from medic_mm.datasets.decoding import (
    MAX_PIXELS,
    REASONS,
    UnreadableImage,
    decode_image,
    read_image,
)
from medic_mm.datasets.transforms import LoadReadableImage
from medic_mm.errors import FileError, MissingFileError
from medic_mm.export.preprocessing import build_transforms, to_rgb
from medic_mm.settings.images import load_images

ZOO = zoo()
BROKEN = broken()


def training_images(folder):
    """A function from a file of the folder to its image, as training is given it."""
    load = dict(type='medic_mm.LoadReadableImage')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(
                type='medic_mm.ImageFolder',
                data_root=str(folder),
                pipeline=[load, dict(type='PackInputs')],
            )
        )
    names = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]

    def by_training(path):
        inputs = dataset[names.index(str(path))]['inputs']
        return inputs.permute(1, 2, 0).numpy()[..., ::-1]

    return by_training


def by_pillow(path):
    with Image.open(path) as image:
        return np.asarray(to_rgb(image))


def by_tools(path):
    init_default_scope('mmpretrain')
    height, width = read_image(path).shape[:2]
    images = load_images(Config(), [path], (height, width))
    return images[0].permute(1, 2, 0).numpy()[..., ::-1]


def by_features(path):
    return np.asarray(_Images([path], lambda image: image)[0])


def by_transforms(path):
    with Image.open(path) as image:
        width, height = to_rgb(image).size
    transforms = build_transforms(
        dict(
            input_size=(3, height, width),
            interpolation='bicubic',
            mean=[0.0] * 3,
            std=[1 / 255] * 3,
            crop_pct=1.0,
            crop_mode='squash',
        )
    )
    with Image.open(path) as image:
        values = transforms(image)
    return values.round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture(scope='module')
def animals(tmp_path_factory):
    files = {name: data for name, (data, _) in ZOO.items()}
    return write(tmp_path_factory.mktemp('zoo'), files)


@pytest.fixture(scope='module')
def doors(animals):
    training = training_images(animals)
    return [training, by_pillow, by_tools, by_features, by_transforms, read_image]


@pytest.mark.parametrize('name', ZOO)
def test_right_values_at_every_door(name, animals, doors):
    path, right = animals / name, ZOO[name][1]
    if right is None:
        with Image.open(path) as image:
            right = np.asarray(image.convert('RGB'))
            number = image.getexif().get(0x0112, 1)
        # the transposition and the turn as numpy writes them
        turn = {5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, 3)}
        right = turn.get(number, np.asarray)(right)
    for door in doors:
        found = door(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, right, door.__name__)


@pytest.mark.parametrize('name', [name for name in ZOO if ZOO[name][1] is None])
def test_opencv_and_pillow_give_equal_jpegs(name, monkeypatch):
    data = ZOO[name][0]
    fast = decode_image(data)
    bgr = decode_image(data, channels='bgr')
    monkeypatch.setattr(decoding, '_opencv', lambda: None)
    np.testing.assert_array_equal(fast, decode_image(data))
    np.testing.assert_array_equal(bgr, fast[..., ::-1])


@pytest.mark.parametrize('name', BROKEN)
def test_broken_files_have_a_reason_at_every_door(name, tmp_path):
    data, reason = BROKEN[name]
    assert reason in REASONS
    path = write(tmp_path, {name: data}) / name
    start = time.perf_counter()
    for read in (read_image, lambda path: LoadReadableImage()(dict(img_path=path))):
        with pytest.raises(UnreadableImage, match=f'{path} cannot be read: ') as error:
            read(path)
        assert error.value.reason == reason
    assert isinstance(_Images([path], lambda image: image)[0], str)
    if name != 'huge.png':  # Pillow itself refuses that one when it is opened
        with pytest.raises((UnreadableImage, OSError)):
            by_pillow(path)
    assert time.perf_counter() - start < 2, 'decoded before it was refused'


def test_the_limit_of_pixels_is_a_setting(tmp_path):
    path = write(tmp_path, {'a.png': encode(Image.fromarray(picture()), 'PNG')})
    info = dict(img_path=str(path / 'a.png'))
    assert LoadReadableImage(max_pixels=24 * 36)(info)['img'].shape == (24, 36, 3)
    with pytest.raises(UnreadableImage, match=r'36 x 24 are more .* max_pixels=863'):
        LoadReadableImage(max_pixels=863)(info)
    jpeg = write(tmp_path, {'a.jpg': encode(Image.fromarray(picture()), 'JPEG')})
    with pytest.raises(UnreadableImage, match=r'36 x 24 are more .* max_pixels=863'):
        read_image(jpeg / 'a.jpg', max_pixels=863)
    assert read_image(jpeg / 'a.jpg', max_pixels=864).shape == (24, 36, 3)
    with pytest.raises(ValueError, match='max_pixels=0 of LoadReadableImage must be'):
        LoadReadableImage(max_pixels=0)


def test_a_limit_above_pillows_own_holds(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    data = encode(Image.fromarray(picture()), 'PNG')
    assert decode_image(data).shape == (24, 36, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert len(huge_png()) < 3_000_000 and MAX_PIXELS < 30_000**2


@pytest.mark.parametrize(('size', 'shape'), [(None, 200), (101, 200), (100, 100)])
def test_jpegs_can_be_decoded_smaller(size, shape):
    smooth = Image.fromarray(picture(4, 6)).resize((300, 200), Image.Resampling.BICUBIC)
    found = decode_image(encode(smooth, 'JPEG', quality=95), min_size=size)
    assert found.shape == (shape, shape * 3 // 2, 3)
    right = np.asarray(smooth.resize(found.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(found.astype(int) - right).mean() < 6


def test_broken_orientation_tags_are_not_looked_at():
    image = Image.fromarray(picture())
    data = encode(image, 'PNG', exif=b'Exif\0\0not a header of TIFF')
    np.testing.assert_array_equal(decode_image(data), picture())


def test_twelve_bits_keep_their_upper_eight(monkeypatch):
    values = picture()[..., 0].astype(np.uint16) << 4 | 9
    file = io.BytesIO(encode(Image.fromarray(values), 'TIFF'))
    with Image.open(file) as image:
        image.load()
        image.tag_v2[258] = (12,)
        found = np.asarray(to_rgb(image))
    np.testing.assert_array_equal(found[..., 1], picture()[..., 0])


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_numbers_without_a_range_are_refused_by_name(mode):
    word = {'I': '32-bit integers', 'F': 'floating point'}[mode]
    with pytest.raises(UnreadableImage, match=f'{word}, whose range is not known'):
        to_rgb(Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (errno.EMFILE, 'Too many open files.*ulimit -n'),
        (errno.EACCES, 'Permission denied.*let this user read it'),
        (errno.EIO, 'Input/output error.*the disk'),
    ],
)
def test_what_the_machine_refuses_is_not_a_broken_image(
    number, words, tmp_path, monkeypatch
):
    path = write(tmp_path, {'a.png': encode(Image.fromarray(picture()), 'PNG')})
    path = path / 'a.png'

    def refuse(*args, **kwargs):
        import os

        raise OSError(number, os.strerror(number))

    loader = LoadReadableImage()
    loader.marks = torch.zeros(1, dtype=torch.uint8)
    monkeypatch.setattr('builtins.open', refuse)
    monkeypatch.setattr('pathlib.Path.read_bytes', refuse)
    for read in (
        lambda: loader(dict(img_path=str(path), sample_idx=0)),
        lambda: read_image(path),
        lambda: _Images([path], lambda image: image)[0],
    ):
        with pytest.raises(FileError, match=rf'a\.png cannot be read \({words}') as e:
            read()
        assert not isinstance(e.value, UnreadableImage)
    assert loader.marks.sum() == 0


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match=r'gone\.png does not exist'):
        LoadReadableImage()(dict(img_path=str(tmp_path / 'gone.png')))


def test_settings_that_ask_for_other_pixels_are_refused():
    with pytest.raises(ValueError, match="color_type='grayscale'"):
        LoadReadableImage(color_type='grayscale')


def test_reading_needs_no_host():
    code = (
        'import sys; sys.modules.update(mmengine=None, mmcv=None, torch=None)\n'
        'from medic_mm.datasets.image_files import find_image_files\n'
        'from medic_mm.datasets.decoding import to_rgb'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
