"""mmpretrain's preprocessor without a copy per sample, and checks of preprocessors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError
from medic_mm.registry import MODELS

# one colour with three different channels; large enough for any padding
_COLOUR, _SIDE = (40, 120, 200), 32


@MODELS.register_module()
class HostSamplesPreprocessor(SelfSupDataPreprocessor):
    """Normalises images on the device and leaves the data samples on the CPU.

    mmpretrain's own class moves each sample's mask by itself, hundreds of tiny copies a
    step. Here the algorithm stacks the masks on the CPU, checks their counts there
    without waiting for the device, and moves them at once.

    Args:
        mean: Means of R, G and B on the scale of 0 to 255. Default: images are not
            normalised.
        std: Standard deviations on the same scale.
        rgb_inputs: The data set gives RGB arrays (mmpretrain's ``CIFAR10``), so nothing
            is to be swapped. Images that are read from files are BGR: there
            ``to_rgb=True``.
        **kwargs: mmpretrain's other arguments: ``to_rgb``, ``non_blocking``, ...

    Raises:
        UserError: for a mean or std that is not three numbers, or only one of the two.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rgb_inputs: bool = False,
        **kwargs,
    ) -> None:
        owner = type(self).__name__
        require(
            (mean is None) == (std is None),
            f'mean={mean!r} and std={std!r} of {owner}: give both or neither',
        )
        for name, values in (('mean', mean), ('std', std)):
            if values is None:
                continue
            require(
                isinstance(values, Sequence) and len(values) in (1, 3),
                f'{name}={values!r} of {owner} must be three numbers: of R, G and B',
            )
            for value in values:
                limits = dict(above=0) if name == 'std' else {}
                require_number(owner, name, value, **limits)
        for name, limits in (
            ('pad_size_divisor', dict(low=1, integer=True)),
            ('pad_value', {}),
        ):
            if name in kwargs:
                require_number(owner, name, kwargs[name], **limits)
        super().__init__(mean=mean, std=std, **kwargs)
        self.rgb_inputs = rgb_inputs

    def cast_data(self, data: Any) -> Any:
        """Move tensors, keep data samples where they are."""
        if isinstance(data, BaseDataElement):
            return data
        return super().cast_data(data)


@torch.no_grad()
def swaps_channels(preprocessor: nn.Module) -> bool:
    """Whether a preprocessor turns BGR into RGB (or back); tried on one colour.

    Raises:
        UserError: for one that does not take a batch of images.
    """
    trial = copy.deepcopy(preprocessor)
    # as they are they may lie on a device without values; the order is all that counts
    for name, value in (('mean', 0.0), ('std', 1.0)):
        if getattr(trial, name, None) is not None:
            setattr(trial, name, torch.full((3, 1, 1), value, device='cpu'))
    colour = torch.tensor(_COLOUR, dtype=torch.uint8, device='cpu')
    batch = colour.view(1, 3, 1, 1).repeat(1, 1, _SIDE, _SIDE)
    try:
        data = dict(inputs=batch, data_samples=[DataSample()])
        seen = trial.cpu()(data, False)['inputs'][0, :, 0, 0]
    except Exception as error:
        raise UserError(
            f'data_preprocessor.type={type(preprocessor).__name__} does not take a '
            f'batch of images (B, 3, H, W): use mmpretrain.SelfSupDataPreprocessor or '
            f'medic_mm.HostSamplesPreprocessor ({type(error).__name__}: {error})'
        ) from error
    return bool(seen[0] > seen[2])


def require_rgb(preprocessor: nn.Module, rgb_inputs: bool | None = None) -> None:
    """Refuse a preprocessor that hands BGR images to the network.

    Args:
        preprocessor: A preprocessor of OpenMMLab.
        rgb_inputs: Whether the data set gives RGB arrays. Default: as the preprocessor
            says, or else no.

    Raises:
        UserError: says what to set.
    """
    if rgb_inputs is None:
        rgb_inputs = getattr(preprocessor, 'rgb_inputs', False)
    swaps = swaps_channels(preprocessor)
    require(
        not (swaps and rgb_inputs),
        'rgb_inputs=True, but the data_preprocessor swaps red and blue, so the network '
        'sees BGR images: set data_preprocessor.to_rgb=False',
    )
    name = type(preprocessor).__name__
    setting = 'bgr_to_rgb' if name == 'SegDataPreProcessor' else 'to_rgb'
    require(
        swaps or rgb_inputs,
        f'data_preprocessor.{setting} of {name} is not set, so the network sees BGR '
        f'images, but weights and teachers are made for RGB: set '
        f'data_preprocessor.{setting}=True (where the data set gives RGB arrays, as '
        "mmpretrain's CIFAR10 does, set rgb_inputs=True instead, of "
        'medic_mm.HostSamplesPreprocessor or, for fine-tuning, of '
        'medic_mm.PretrainedBackboneHook)',
    )


def require_statistics(preprocessor: nn.Module) -> None:
    """Refuse a preprocessor without the mean and std by which a teacher re-normalises.

    Raises:
        UserError: also for values that cannot normalise.
    """
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    require(
        mean is not None and std is not None,
        'the teacher needs the mean and std that normalised its input: set them in '
        'data_preprocessor',
    )
    if mean.is_meta:
        return  # built for its shapes alone
    require(
        mean.isfinite().all() and std.isfinite().all() and (std > 0).all(),
        f'data_preprocessor.mean={mean.flatten().tolist()}, '
        f'std={std.flatten().tolist()}: means must be finite and deviations above 0',
    )
