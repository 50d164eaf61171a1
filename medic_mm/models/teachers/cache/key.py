"""What a cache of teacher outputs depends on, and the key made from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from torch import Tensor, nn

from medic_mm.datasets.data_preprocessor import require_statistics, swaps_channels
from medic_mm.errors import UserError
from medic_mm.models.teachers.cache.cached import CachedTeacher
from medic_mm.models.teachers.cache.view_rows import fixed_view_position


def dataset_config(config: Mapping) -> Mapping:
    """Config of the innermost training data set.

    Raises:
        UserError: where the data set was not given as a config.
    """
    node: Any = config.get('train_dataloader', {})
    node = node.get('dataset') if isinstance(node, Mapping) else None
    while isinstance(node, Mapping) and 'pipeline' not in node and 'dataset' in node:
        node = node['dataset']
    if not isinstance(node, Mapping) or 'pipeline' not in node:
        raise UserError(
            "the teacher cache takes its key from the data set's config: give "
            'train_dataloader.dataset with its pipeline as a config, and build the '
            'Runner with Runner.from_cfg'
        )
    return node


def describe(
    model: nn.Module, cached: CachedTeacher, dataset: BaseDataset, config: Mapping
) -> dict[str, Any]:
    """All that the outputs depend on, as JSON; its SHA-256 is the cache's key."""
    position = fixed_view_position(dataset)
    fixed_view = dataset.pipeline.transforms[position]
    preprocessor = model.data_preprocessor
    require_statistics(preprocessor)
    length, total = math.prod(cached.grid), len(dataset) * fixed_view.num_views
    description = {
        'teacher': cached.fingerprint(),
        'teacher_class': type(cached.teacher).__name__,
        'dataset': plain({k: v for k, v in config.items() if k != 'pipeline'}),
        'dataset_class': type(dataset).__name__,
        'images': len(dataset),
        'images_sha256': data_digest(dataset),
        'pipeline': plain(config['pipeline'][: position + 1]),
        'num_views': fixed_view.num_views,
        'seed': fixed_view.seed,
        'preprocessor': {
            'mean': preprocessor.mean.flatten().tolist(),
            'std': preprocessor.std.flatten().tolist(),
            'swaps_channels': swaps_channels(preprocessor),
        },
        'shape': [total, 1 + length, cached.embed_dims],
        'dtype': cached.dtype,
    }
    # no entry where there is none, so that caches made before keep their key
    if cached.attention:
        description['attention_shape'] = [total, length, length]
    return description


def cache_key(description: dict[str, Any]) -> str:
    """SHA-256 of a description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON can hold it, equal for equal values in every run.

    Arrays become their SHA-256, classes and functions their names.

    Raises:
        UserError: for an object whose text is its memory address.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f'{value.dtype}{list(value.shape)} {digest}'
    if hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    text = repr(value)
    if ' at 0x' in text:
        raise UserError(
            f'{text} cannot be part of the key of a teacher cache: give it as a config '
            'dict'
        )
    return text


def data_digest(dataset: BaseDataset) -> str:
    """SHA-256 over what the data set knows of its images.

    That is each image's record and, where it is a file, size and time of change. The
    files are not read.
    """
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        record = [plain(info)]
        if 'img_path' in info:
            # other storage backends have no local file to look at
            with contextlib.suppress(OSError):
                status = os.stat(info['img_path'])
                record += [status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(record, sort_keys=True).encode() + b'\n')
    return digest.hexdigest()
