"""Counts the images that could not be read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from medic_mm.datasets.transforms.loading import LoadReadableImage
from medic_mm.registry import HOOKS


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Shows how many training images ``LoadReadableImage`` skipped, and which.

    After each epoch in which new ones were met, and at the end of training. Workers
    mark images in shared memory; processes are counted together.

    Args:
        max_names: So many files are named in one line of the log.
    """

    def __init__(self, max_names: int = 10) -> None:
        self.max_names = max_names
        self.skipped: torch.Tensor | None = None
        self._told = 0

    def before_train(self, runner: Runner) -> None:
        """Share the marks with the loading transforms."""
        dataset = runner.train_dataloader.dataset
        loaders = list(_loaders(getattr(dataset, 'pipeline', None)))
        if loaders:
            self.skipped = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()
        for loader in loaders:
            loader.skipped = self.skipped

    def after_train_epoch(self, runner: Runner) -> None:
        """Tell of new ones."""
        if self.skipped is None:
            return
        marks = self._all_marks(runner)
        if len(marks) > self._told:
            self._tell(runner, marks)
        self._told = len(marks)

    def after_train(self, runner: Runner) -> None:
        """Tell the total."""
        if self.skipped is None:
            return
        marks = self._all_marks(runner)
        if marks:
            self._tell(runner, marks)
        else:
            runner.logger.info('Every training image that was asked for was readable.')

    def _all_marks(self, runner: Runner) -> list[int]:
        counts = self.skipped.to(torch.uint8)
        all_reduce(counts, op='max')
        return counts.nonzero().flatten().tolist()

    def _tell(self, runner: Runner, marks: list[int]) -> None:
        dataset = runner.train_dataloader.dataset
        named = [dataset.get_data_info(i)['img_path'] for i in marks[: self.max_names]]
        more = f' and {len(marks) - len(named)} more' if len(marks) > len(named) else ''
        runner.logger.warning(
            f'{len(marks)} of {len(dataset)} training images were unreadable and '
            f'skipped: {", ".join(named)}{more}'
        )


def _loaders(pipeline: object) -> Iterator[LoadReadableImage]:
    pipeline = getattr(pipeline, 'wrapped', pipeline)  # FixedView holds its own
    for transform in getattr(pipeline, 'transforms', None) or []:
        if isinstance(transform, LoadReadableImage):
            yield transform
        yield from _loaders(transform)
