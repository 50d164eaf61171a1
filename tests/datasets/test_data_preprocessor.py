"""Which colours a network sees, and that BGR ones are refused on every path."""

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from tiny import MEAN, STD, medic_config
from tiny_mimhd import mimhd_config, tinymim_config

from medic_mm.datasets.data_preprocessor import (
    HostSamplesPreprocessor,
    require_rgb,
    swaps_channels,
)
from medic_mm.errors import UserError
from medic_mm.registry import MODELS
from medic_mm.settings.student import Student

NUMBERS = dict(mean=MEAN, std=STD)
ALGORITHMS = dict(
    medic=medic_config(),
    medic_dense=medic_config('dense'),
    medic_pixels=medic_config(weights=dict(pixel=1.0)),
    mimhd=mimhd_config(),
    tinymim=tinymim_config(),
)
KINDS = [
    'medic_mm.HostSamplesPreprocessor',
    'mmpretrain.SelfSupDataPreprocessor',
    'mmpretrain.ClsDataPreprocessor',
    'mmseg.SegDataPreProcessor',
]


def build(kind: str, **settings) -> torch.nn.Module:
    return MODELS.build(dict(type=kind, **settings))


@pytest.mark.parametrize(
    'numbers', [{}, NUMBERS, dict(mean=[250.0] * 3, std=[0.1] * 3)]
)
@pytest.mark.parametrize('kind', KINDS)
def test_the_order_of_channels_is_found_by_trying(kind, numbers):
    if kind.startswith('mmseg'):
        pytest.importorskip('mmseg')
        import mmseg.models  # noqa: F401
    name = 'bgr_to_rgb' if kind.startswith('mmseg') else 'to_rgb'
    assert swaps_channels(build(kind, **numbers, **{name: True}))
    left_out = build(kind, **numbers)
    assert not swaps_channels(left_out)
    with pytest.raises(UserError, match=f'set data_preprocessor.{name}=True'):
        require_rgb(left_out)
    require_rgb(left_out, rgb_inputs=True)
    with pytest.raises(UserError, match='to_rgb=False'):
        require_rgb(build(kind, **numbers, **{name: True}), rgb_inputs=True)


def test_settings_of_segmentation_at_test_time():
    pytest.importorskip('mmseg')
    import mmseg.models  # noqa: F401

    sizes = dict(size=(16, 16), seg_pad_val=255, test_cfg=dict(size_divisor=16))
    kind = 'mmseg.SegDataPreProcessor'
    assert swaps_channels(build(kind, **NUMBERS, **sizes, bgr_to_rgb=True))
    assert not swaps_channels(build(kind, **NUMBERS, **sizes))


def test_a_model_of_shapes_alone_is_checked_too():
    with torch.device('meta'):
        MODELS.build(mimhd_config())
        config = dict(mimhd_config(), data_preprocessor=dict(NUMBERS))
        with pytest.raises(UserError, match=r'to_rgb=True'):
            MODELS.build(config)


def test_two_normalisations_are_refused():
    preprocessor = build(
        'mmpretrain.TwoNormDataPreprocessor',
        second_mean=MEAN,
        second_std=STD,
        **NUMBERS,
    )
    with pytest.raises(
        UserError, match='TwoNormDataPreprocessor does not take a batch'
    ):
        require_rgb(preprocessor)


@pytest.mark.parametrize('value', [None, False])
@pytest.mark.parametrize('name', ALGORITHMS)
def test_no_algorithm_is_built_on_bgr(name, value):
    config = dict(ALGORITHMS[name], data_preprocessor=dict(NUMBERS))
    if value is not None:
        config['data_preprocessor']['to_rgb'] = value
    with pytest.raises(UserError, match=r'data_preprocessor\.to_rgb=True'):
        MODELS.build(config)
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(UserError, match=r'data_preprocessor\.to_rgb=True'),
    ):
        Student(config)


@pytest.mark.parametrize('name', ALGORITHMS)
def test_a_preprocessor_without_type_is_mmpretrains(name):
    given = dict(NUMBERS, to_rgb=True)
    model = MODELS.build(dict(ALGORITHMS[name], data_preprocessor=given))
    assert type(model.data_preprocessor).__name__ == 'SelfSupDataPreprocessor'
    assert given == dict(NUMBERS, to_rgb=True), 'the settings are left as they were'
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255  # as mmcv reads it: BGR
    batch = torch.from_numpy(red).permute(2, 0, 1)[None]
    out = model.data_preprocessor(dict(inputs=batch, data_samples=None))['inputs']
    seen = out[0, :, 0, 0] * torch.tensor(STD) + torch.tensor(MEAN)
    torch.testing.assert_close(seen, torch.tensor([255.0, 0.0, 0.0]), atol=1e-3, rtol=0)


def test_arrays_that_are_rgb_are_said_to_be():
    given = dict(type='medic_mm.HostSamplesPreprocessor', rgb_inputs=True, **NUMBERS)
    model = MODELS.build(dict(medic_config(), data_preprocessor=given))
    batch = torch.tensor([[[[255]], [[0]], [[0]]]], dtype=torch.uint8)
    out = model.data_preprocessor(dict(inputs=batch, data_samples=None))['inputs']
    assert out[0, 0, 0, 0] == (255 - torch.tensor(MEAN[0])) / STD[0]
    given['to_rgb'] = True
    with pytest.raises(UserError, match='to_rgb=False'):
        MODELS.build(dict(medic_config(), data_preprocessor=given))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(mean=MEAN), 'give both or neither'),
        (dict(std=STD), 'give both or neither'),
        (dict(mean=MEAN, std=[1.0, 2.0]), r'std=\[1.0, 2.0\] .* three numbers'),
        (dict(mean=MEAN, std=[1.0, 0.0, 1.0]), r'std=0.0 .* above 0'),
        (dict(mean=[1.0, float('nan'), 1.0], std=STD), r'mean=nan .* a number'),
    ],
)
def test_statistics_that_cannot_normalise_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        HostSamplesPreprocessor(**settings)


@pytest.mark.parametrize('std', [[1.0, 0.0, 1.0], [1.0, float('nan'), 1.0]])
@pytest.mark.parametrize('name', ['medic', 'mimhd'])
def test_statistics_of_mmpretrains_preprocessor_are_checked_too(name, std):
    given = dict(mean=MEAN, std=std, to_rgb=True)
    with pytest.raises(UserError):
        MODELS.build(dict(ALGORITHMS[name], data_preprocessor=given))
