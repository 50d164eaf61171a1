"""The fixed views that a teacher cache holds, in order, and the key made from them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from torch import Tensor, nn
from torch.utils.data import Dataset

from medic_mm.datasets.data_preprocessor import require_statistics, swaps_channels
from medic_mm.datasets.transforms.fixed_view import FixedView
from medic_mm.errors import UserError
from medic_mm.models.teachers.cache.cached import CachedTeacher
from medic_mm.models.teachers.cache.file import Layout


def innermost_dataset(dataset: Any) -> BaseDataset:
    """The data set with the pipeline, inside ``RepeatDataset`` and its like."""
    inner = dataset
    while not hasattr(inner, 'pipeline') and hasattr(inner, 'dataset'):
        inner = inner.dataset
    if not isinstance(inner, BaseDataset):
        raise UserError(
            f'the teacher cache needs one mmengine.BaseDataset, but the training data '
            f'are a {type(inner).__name__}: fixed views are counted by the index in '
            'one data set'
        )
    return inner


def fixed_view_position(dataset: BaseDataset) -> int:
    """Index of the one ``FixedView`` in the pipeline of ``dataset``."""
    transforms = dataset.pipeline.transforms
    found = [i for i, t in enumerate(transforms) if isinstance(t, FixedView)]
    if len(found) != 1:
        raise UserError(
            f'the training pipeline has {len(found)} FixedView but the teacher cache '
            'needs exactly one: wrap all random augmentations in '
            "dict(type='medic_mm.FixedView', transforms=[...])"
        )
    return found[0]


class ViewRows(Dataset):
    """Row ``i * num_views + v`` is view ``v`` of image ``i``, through the pipeline.

    An item is ``(row, sample)`` for one of ``rows``; the sample is None where the image
    cannot be read.
    """

    def __init__(self, dataset: BaseDataset, rows: Sequence[int]) -> None:
        transforms = dataset.pipeline.transforms
        self.num_views = transforms[fixed_view_position(dataset)].num_views
        self.rows = rows
        # a shallow copy, so that prepare_data, which data sets override, is used as
        # it is but with the view chosen here
        self._pipeline, self._view = dataset.pipeline, 0
        self._dataset = copy.copy(dataset)
        self._dataset.pipeline = self._with_view

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        row = int(self.rows[index])
        image, self._view = divmod(row, self.num_views)
        return row, self._dataset.prepare_data(image)

    def _with_view(self, results: dict) -> Any:
        results['view'] = self._view
        return self._pipeline(results)


def collate_rows(
    collate: Callable, items: Sequence[tuple[int, Any]]
) -> tuple[list[int], Any]:
    """Items of :class:`ViewRows` as ``(rows, batch)``, without those not readable.

    ``batch`` is None where none could be read.
    """
    kept = [item for item in items if item[1] is not None]
    rows = [row for row, _ in kept]
    return rows, collate([sample for _, sample in kept]) if kept else None


def dataset_config(config: Mapping) -> Mapping:
    """Config of the innermost training data set."""
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
    """All that the outputs depend on, as JSON; its SHA-256 is the cache's key.

    The teacher's fingerprint; the data set (config, number and records of images,
    sizes and times of files); the pipeline's config up to and with ``FixedView`` (which
    fixes the image size as well), its views and seed; the student's normalisation;
    dtype and shape; attention where it is kept.
    """
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


def layout_of(description: dict[str, Any]) -> Layout:
    """Layout of the cache of a description, whose SHA-256 is the key."""
    text = json.dumps(description, sort_keys=True)
    rows, *tokens = description['shape']
    contents = {'tokens': tuple(tokens)}
    if 'attention_shape' in description:
        contents['attention'] = tuple(description['attention_shape'][1:])
    key = hashlib.sha256(text.encode()).hexdigest()
    return Layout(key, rows, description['dtype'], contents)


def plain(value: Any) -> Any:
    """A value as JSON can hold it, equal for equal values in every run.

    Arrays become their SHA-256, classes and functions their names.
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
    """SHA-256 over the records of all images, and size and time of each file."""
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
