"""From a config's evaluation pipeline to the transforms of timm and torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medic_mm.datasets.decoding import to_rgb
from medic_mm.errors import UserError
from medic_mm.helpers import type_name

__all__ = ['Preprocessing', 'build_transforms', 'describe_preprocessing', 'to_rgb']

# steps that change no pixel
_NOT_PIXELS = ('LoadImageFromFile', 'LoadReadableImage', 'PackInputs', 'Collect')
_KNOWN = (['Resize'], ['Resize', 'CenterCrop'], ['ResizeEdge', 'CenterCrop'])
_LOADERS = ('knn_test_dataloader', 'test_dataloader', 'val_dataloader')


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    Attributes:
        data: timm's settings: ``input_size``, ``interpolation``, ``crop_pct``,
            ``crop_mode``, ``mean``, ``std`` (of values from 0 to 1, RGB).
        notes: A sentence for each step of the config's pipeline that these settings do
            not repeat exactly.
    """

    data: dict[str, Any]
    notes: tuple[str, ...] = ()

    def timm_settings(self) -> dict[str, Any]:
        """What timm calls ``pretrained_cfg``; fit for JSON."""
        return dict(
            custom_load=False,
            fixed_input_size=True,
            **self.data,
            num_classes=0,
            pool_size=None,
            first_conv='patch_embed.proj',
            classifier='head',
        )


def describe_preprocessing(
    config: Mapping[str, Any], image_size: tuple[int, int]
) -> Preprocessing:
    """Settings that prepare an image as the config's evaluation does.

    The pipeline is that of the k-NN test data, or else of the test or validation data.
    Resizing with Pillow, by both sides or by the shorter one, and a centre crop are
    repeated exactly. Without a pipeline that resizes, images are resized by their
    shorter side (bicubic) and cropped in the centre.

    Args:
        config: A config of pre-training, as plain containers.
        image_size: Height and width of the backbone's images.

    Raises:
        UserError: for images that the config feeds as BGR, or other statistics than
            three means and three standard deviations.
    """
    steps = [
        step
        for step in _evaluation_pipeline(config)
        if isinstance(step, Mapping) and type_name(step) not in _NOT_PIXELS
    ]
    data, notes = _resizing(steps, image_size)
    data.update(input_size=[3, *image_size], **_statistics(config))
    return Preprocessing(data, tuple(notes))


def build_transforms(data: Mapping[str, Any]) -> Callable:
    """A callable from a PIL image to a normalised tensor ``(3, H, W)``.

    Images become RGB as in training first, see :func:`to_rgb`.
    """
    from timm.data import create_transform
    from torchvision.transforms import Compose

    steps = create_transform(
        input_size=tuple(data['input_size']),
        is_training=False,
        interpolation=data['interpolation'],
        mean=tuple(data['mean']),
        std=tuple(data['std']),
        crop_pct=data['crop_pct'],
        crop_mode=data['crop_mode'],
    )
    return Compose([to_rgb, *steps.transforms])


def _evaluation_pipeline(config: Mapping[str, Any]) -> Sequence[Any]:
    loaders = [
        hook.get('test_dataloader')
        for hook in config.get('custom_hooks') or []
        if isinstance(hook, Mapping) and type_name(hook) == 'KNNHook'
    ]
    loaders += [config.get(name) for name in _LOADERS]
    for loader in loaders:
        dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
        if isinstance(dataset, Mapping) and dataset.get('pipeline'):
            return dataset['pipeline']
    return []


def _resizing(
    steps: Sequence[Mapping[str, Any]], image_size: tuple[int, int]
) -> tuple[dict[str, Any], list[str]]:
    names = [type_name(step) for step in steps]
    fallback = dict(crop_mode='center', crop_pct=1.0, interpolation='bicubic')
    if not steps:
        return fallback, []
    known = names in _KNOWN
    first, last = steps[0], steps[-1]
    crop = _pair(last.get('crop_size')) if names[-1] == 'CenterCrop' else None
    target = crop or (_pair(first.get('scale')) if known else None)
    squash = names[0] == 'Resize'
    if squash:
        known = known and not first.get('keep_ratio') and _same_share(first, target)
    else:
        known = known and first.get('edge', 'short') == 'short'
    if not known or target != image_size:
        return fallback, [
            f'The evaluation pipeline ({", ".join(names)}) has no equal in timm for '
            f'images of {image_size[0]}x{image_size[1]}: the transforms resize by the '
            'shorter side and crop in the centre.'
        ]
    scale = min(_pair(first['scale']) or target)
    data = dict(
        crop_mode='squash' if squash else 'center',
        crop_pct=_crop_share(min(target), scale),
        interpolation=first.get('interpolation', 'bilinear'),
    )
    if first.get('backend', 'cv2') == 'pillow':
        return data, []
    return data, [
        'The evaluation pipeline resizes with OpenCV, the transforms with Pillow: '
        'pixels of resized images differ.'
    ]


def _same_share(resize: Mapping[str, Any], target: tuple[int, int] | None) -> bool:
    """Whether both sides are cropped by the same share: timm has one ``crop_pct``."""
    scale = _pair(resize.get('scale'))
    if scale is None or target is None:
        return False
    share = _crop_share(min(target), min(scale))
    # mmcv gives the width first
    return [math.floor(side / share) for side in target] == [scale[1], scale[0]]


def _crop_share(crop: int, scale: int) -> float:
    """A share from which timm's ``floor(crop / share)`` gives ``scale`` again."""
    share = crop / scale
    return share if math.floor(crop / share) == scale else crop / (scale + 0.5)


def _statistics(config: Mapping[str, Any]) -> dict[str, list[float]]:
    model = config.get('model') or {}
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor')
    preprocessor = preprocessor or {}
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    if mean is None or std is None:
        # nothing is normalised: the network sees values from 0 to 255
        return dict(mean=[0.0] * 3, std=[1 / 255] * 3)
    if len(mean) != 3 or len(std) != 3:
        raise UserError(
            f'data_preprocessor.mean={mean}, std={std}: export takes three of each'
        )
    if not any(map(preprocessor.get, ('to_rgb', 'bgr_to_rgb', 'rgb_inputs'))):
        raise UserError(
            'data_preprocessor.to_rgb is not set, so the network was trained on BGR '
            'images, which timm has no setting for: export takes to_rgb=True'
        )
    # to 12 digits: 123.675 / 255 is meant to be 0.485
    mean, std = ([round(value / 255, 12) for value in x] for x in (mean, std))
    return dict(mean=mean, std=std)


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None
