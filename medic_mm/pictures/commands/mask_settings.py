"""Where a config of pre-training says what is hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.utils import to_2tuple
from mmpretrain.models import MAE

from medic_mm.datasets.transforms import MaskTransform
from medic_mm.errors import UserError
from medic_mm.masking import masked_count
from medic_mm.models.mimhd.algorithm import MIMHD
from medic_mm.registry import MODELS, TRANSFORMS


def find_mask_transform(config: Config) -> dict | None:
    """Settings of the mask transform in the training pipeline; None where is none.

    Args:
        config: A config whose scope is entered. The settings are its own: what is
            changed in them is changed in the config.
    """
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset') is not None:  # wrappers such as RepeatDataset
        dataset = dataset['dataset']
    for step in _steps(dataset.get('pipeline') or []):
        kind = step.get('type')
        kind = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
        if isinstance(kind, type) and issubclass(kind, MaskTransform):
            return step
    return None


def set_mask_ratio(config: Config, ratio: float) -> None:
    """Let a model hide another share of patches, in place.

    Args:
        config: A config whose scope is entered.
        ratio: Share of patches in (0, 1).

    Raises:
        UserError: for a ratio out of range, or a config that says nowhere how much is
            hidden.
    """
    if not 0 < ratio < 1 or math.isnan(ratio):
        raise UserError(f'--ratio {ratio}: use a share above 0 and below 1')
    step = find_mask_transform(config)
    kind = _model_class(config)
    if config.model.get('masking') is not None:
        config.model['masking']['mask_ratio'] = ratio
    elif step is not None:
        step['mask_ratio'] = ratio
        step.pop('num_masked', None)
    elif issubclass(kind, MIMHD):
        config.model['mask_ratio'] = ratio
    elif issubclass(kind, MAE):
        backbone = config.model['backbone']
        backbone['mask_ratio'] = _ratio_of_the_host(backbone, ratio)
    else:
        raise UserError(
            f'--ratio {ratio}: the config has no mask to change: put BlockMask, '
            'RandomMask or GridMask before PackInputs in its training pipeline'
        )


def _ratio_of_the_host(backbone: Mapping[str, Any], ratio: float) -> float:
    """What the host's MAE, which rounds up, needs to hide as many as our masks do."""
    size, patch = backbone.get('img_size', 224), backbone.get('patch_size', 16)
    rows, columns = (side // patch for side in to_2tuple(size))
    # half a patch less, so that no rounding of floats matters
    return (masked_count(rows * columns, ratio) - 0.5) / (rows * columns)


def _model_class(config: Config) -> type:
    kind = config.model['type']
    if isinstance(kind, type):
        return kind
    # a bare name of a host is found in the default scope
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind) or object


def _steps(pipeline: Sequence[Any]) -> Iterator[dict]:
    """The transforms of a pipeline, and those inside of them."""
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            inner = step.get('transforms')
            yield from _steps(inner if isinstance(inner, list | tuple) else [])
