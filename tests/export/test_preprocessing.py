"""The transforms against the config's own evaluation pipeline, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from exported import SQUASH, run_config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from PIL import Image
from torch import Tensor

from medic_mm.export.preprocessing import build_transforms, describe_preprocessing
from medic_mm.registry import MODELS

PILLOW = dict(backend='pillow', interpolation='bicubic')
EDGE = dict(type='ResizeEdge', scale=37, edge='short', **PILLOW)
CROP = dict(type='CenterCrop', crop_size=32)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A smooth picture with noise, wider than high, without loss."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:61, :90]
    waves = np.stack([rows * 3, columns * 2, rows + columns], -1) % 200
    pixels = waves + random.integers(0, 55, (61, 90, 3))
    path = tmp_path / 'picture.png'
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def by_config(config: dict, path: Path) -> Tensor:
    """What the network would be given by the config itself."""
    init_default_scope('mmpretrain')
    dataset = config['custom_hooks'][0]['test_dataloader']['dataset']
    packed = Compose(dataset['pipeline'])(dict(img_path=str(path)))
    preprocessor = MODELS.build(config['data_preprocessor'])
    data = dict(inputs=packed['inputs'][None], data_samples=[DataSample()])
    return preprocessor(data)['inputs'][0]


@pytest.mark.parametrize(
    'steps',
    [
        [SQUASH],
        [dict(SQUASH, scale=(36, 36)), CROP],
        [EDGE, CROP],
        [dict(EDGE, scale=256), CROP],
        [dict(EDGE, interpolation='bilinear'), CROP],
    ],
    ids=['squash', 'squash-crop', 'edge', 'large', 'bilinear'],
)
def test_equal_to_the_pipeline(steps: list[dict], picture: Path) -> None:
    config = run_config({}, steps)
    found = describe_preprocessing(config, (32, 32))
    assert found.notes == ()
    expected = by_config(config, picture)
    assert expected.shape == (3, 32, 32) and expected.std() > 0.1
    got = build_transforms(found.data)(Image.open(picture))
    assert (got - expected).abs().max() < 1e-5


def test_opencv_is_told_and_near(picture: Path) -> None:
    config = run_config({}, [dict(type='Resize', scale=32, interpolation='bilinear')])
    found = describe_preprocessing(config, (32, 32))
    assert 'resizes with OpenCV' in found.notes[0]
    got = build_transforms(found.data)(Image.open(picture))
    difference = (got - by_config(config, picture)).abs()
    # without smoothing, OpenCV keeps the noise that Pillow averages: about 14 % of it
    assert 0.01 < difference.mean() < 0.6


@pytest.mark.parametrize(
    'steps',
    [
        [dict(type='Resize', scale=(40, 36), **PILLOW), CROP],
        [dict(EDGE, edge='long'), CROP],
        [EDGE, dict(CROP, crop_size=24)],
        [dict(type='RandomFlip'), SQUASH],
    ],
)
def test_other_pipelines_are_told(steps: list[dict], picture: Path) -> None:
    found = describe_preprocessing(run_config({}, steps), (32, 32))
    assert 'has no equal in timm for images of 32x32' in found.notes[0]
    assert build_transforms(found.data)(Image.open(picture)).shape == (3, 32, 32)


def test_images_that_are_prepared_already(picture: Path) -> None:
    config = run_config({}, [])
    config['custom_hooks'] = []
    found = describe_preprocessing(config, (32, 32))
    assert found.notes == ()
    small = Image.open(picture).resize((32, 32))
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    mean = torch.tensor(config['data_preprocessor']['mean']).view(3, 1, 1)
    std = torch.tensor(config['data_preprocessor']['std']).view(3, 1, 1)
    expected = (pixels - mean) / std
    assert (build_transforms(found.data)(small) - expected).abs().max() < 1e-5


def test_grey_images_and_turned_ones(picture: Path, tmp_path: Path) -> None:
    data = describe_preprocessing(run_config({}), (32, 32)).data
    transforms = build_transforms(data)
    grey = Image.open(picture).convert('L')
    assert torch.equal(transforms(grey), transforms(grey.convert('RGB')))
    turned = tmp_path / 'turned.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.open(picture).save(turned, exif=exif)
    assert torch.equal(
        transforms(Image.open(turned)),
        transforms(Image.open(picture).rotate(-90, expand=True)),
    )


def test_no_statistics_leaves_values_as_they_are(picture: Path) -> None:
    config = run_config({})
    config['data_preprocessor'] = dict(type='mmpretrain.SelfSupDataPreprocessor')
    data = describe_preprocessing(config, (32, 32)).data
    small = Image.open(picture).resize((32, 32))
    expected = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()
    assert (build_transforms(data)(small) - expected).abs().max() < 1e-3


def test_bgr_is_refused() -> None:
    config = run_config({})
    config['data_preprocessor']['to_rgb'] = False
    with pytest.raises(ValueError, match='trained on BGR images'):
        describe_preprocessing(config, (32, 32))
