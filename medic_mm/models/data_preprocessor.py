"""The host's preprocessor, without one copy to the device per sample."""

from __future__ import annotations

from typing import Any

from mmengine.structures import BaseDataElement
from mmpretrain.models.utils import SelfSupDataPreprocessor

from medic_mm.registry import MODELS


@MODELS.register_module()
class HostSamplesPreprocessor(SelfSupDataPreprocessor):
    """Normalises images on the device and leaves the data samples on the host.

    The host's own class moves each sample's mask by itself, hundreds of tiny copies a
    step. Here the algorithm stacks the masks on the CPU, checks their counts there
    without waiting for the device, and moves them at once.
    """

    def cast_data(self, data: Any) -> Any:
        """Move tensors, keep data samples where they are."""
        if isinstance(data, BaseDataElement):
            return data
        return super().cast_data(data)
