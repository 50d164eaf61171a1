"""All fixed views of a data set, in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

from medic_mm.datasets.transforms.fixed_view import FixedView
from medic_mm.errors import UserError


def innermost_dataset(dataset: Any) -> BaseDataset:
    """The data set with the pipeline, inside ``RepeatDataset`` and its like.

    Raises:
        UserError: where there is none, or several, whose indices would collide.
    """
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
    """Index of ``FixedView`` in the pipeline of ``dataset``.

    Raises:
        UserError: where there is none, or more than one.
    """
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

    An item is ``(row, sample)``; the sample is None where an image cannot be read.

    Args:
        dataset: The training data set; it is not touched.
        rows: The rows to go through. Default: all.
    """

    def __init__(self, dataset: BaseDataset, rows: Sequence[int] | None = None) -> None:
        transforms = dataset.pipeline.transforms
        self.num_views = transforms[fixed_view_position(dataset)].num_views
        self.total = len(dataset) * self.num_views
        self.rows = range(self.total) if rows is None else rows
        # a shallow copy, so that prepare_data, which data sets override, is used as
        # it is but with the view chosen here
        self._forced = _ForcedView(dataset.pipeline)
        self._dataset = copy.copy(dataset)
        self._dataset.pipeline = self._forced

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        row = int(self.rows[index])
        image, self._forced.view = divmod(row, self.num_views)
        return row, self._dataset.prepare_data(image)


class _ForcedView:
    def __init__(self, pipeline: Callable) -> None:
        self.pipeline = pipeline
        self.view = 0

    def __call__(self, results: dict) -> Any:
        results['view'] = self.view
        return self.pipeline(results)


class RowCollate:
    """Collates items of :class:`ViewRows` to ``(rows, batch)``, without the missing.

    ``batch`` is None where no item of it could be read.
    """

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple[int, Any]]) -> tuple[list[int], Any]:
        kept = [item for item in items if item[1] is not None]
        rows = [row for row, _ in kept]
        return rows, self.collate([sample for _, sample in kept]) if kept else None
