"""Counts the images that could not be read, and stops where they are many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from medic_mm.checkpoints.saving import write_whole
from medic_mm.checks import require_number
from medic_mm.datasets.class_lists import leaves
from medic_mm.datasets.decoding import REASONS
from medic_mm.datasets.image_files import count_left_out
from medic_mm.datasets.transforms.loading import UNREADABLE, image_loaders
from medic_mm.errors import FileError
from medic_mm.helpers import listed
from medic_mm.registry import HOOKS

_FILE = 'left_out_images.txt'
_IMAGES_BETWEEN_LOOKS = 1000


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Counts the training images that ``LoadReadableImage`` skipped, and names them.

    Data sets inside of others (``ConcatDataset``, ``RepeatDataset``, ...) are counted
    as well. Workers mark images in shared memory; processes are counted together,
    after each epoch and every 1,000 images. New ones are named in the log; all of them,
    and what ``ImageFolder`` left out of its folders, are in ``left_out_images.txt`` in
    the work folder, one ``reason<tab>path`` a line.

    Without this hook an unreadable image ends the training. So it does under an
    ``IterBasedTrainLoop`` of stock MMEngine, which starts its workers before any hook.

    Args:
        max_names: So many files are named in one line of the log.
        max_unreadable: The run stops where a larger share of the images read so far
            is unreadable.

    Raises:
        FileError: where too many images are unreadable.
    """

    # before the hook that reads all images to fill a cache
    priority = 'VERY_HIGH'

    def __init__(self, max_names: int = 10, max_unreadable: float = 0.1) -> None:
        require_number(self, 'max_names', max_names, low=0, integer=True)
        require_number(self, 'max_unreadable', max_unreadable, low=0, high=1)
        self.max_names = max_names
        self.max_unreadable = max_unreadable
        self.marks: Tensor | None = None
        self._sets: list[Any] = []
        self._told = 0

    def before_train(self, runner: Runner) -> None:
        """Share the marks with the loading transforms."""
        dataset = runner.train_dataloader.dataset
        found = {id(x): x for x in leaves(dataset) if _loaders(x)}
        self._sets = list(found.values())
        self._told = 0
        self.marks = None
        if self._sets:
            sizes = [len(x) for x in self._sets]
            self.marks = torch.zeros(sum(sizes), dtype=torch.uint8).share_memory_()
            for leaf, marks in zip(self._sets, self.marks.split(sizes), strict=True):
                for loader in _loaders(leaf):
                    loader.marks = marks
        self._write(runner, {})

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the marks every 1,000 images."""
        images = (runner.train_dataloader.batch_size or 1) * get_world_size()
        done = (runner.iter + 1) * images
        if done // _IMAGES_BETWEEN_LOOKS > (done - images) // _IMAGES_BETWEEN_LOOKS:
            self._look(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Name new ones."""
        self._look(runner)

    def after_train(self, runner: Runner) -> None:
        """Name all of them."""
        self._look(runner, last=True)

    def _look(self, runner: Runner, last: bool = False) -> None:
        """Count marks of all processes, name what is new, stop above the share."""
        if self.marks is None:
            return
        marks = self.marks.clone()
        all_reduce(marks, op='max')
        found = (marks >= UNREADABLE).nonzero().flatten().tolist()
        if len(found) > self._told or (last and found):
            by_reason: dict[str, list[str]] = {}
            for index in found:
                reason = REASONS[int(marks[index]) - UNREADABLE]
                by_reason.setdefault(reason, []).append(self._path(index))
            self._tell(runner, len(found), by_reason)
        elif last:
            runner.logger.info('All requested training images were readable.')
        self._told = len(found)
        read = int((marks > 0).sum())
        if len(found) > self.max_unreadable * read:
            raise FileError(
                f'{len(found)} of the {read} training images read so far are '
                f'unreadable, more than max_unreadable={self.max_unreadable:g} of '
                f'SkippedImagesHook allows, such as {self._path(found[0])}: repair '
                f'or remove them ({Path(runner.work_dir, _FILE)} names all)'
            )

    def _tell(
        self, runner: Runner, count: int, by_reason: dict[str, list[str]]
    ) -> None:
        paths = [path for reason in by_reason for path in by_reason[reason]]
        self._write(runner, by_reason)
        # one text for each: MMEngine drops warnings whose template was there before
        runner.logger.warning(
            f'{count} of {len(self.marks)} training images were unreadable and skipped '
            f'({count_left_out(by_reason)}; all are in {_FILE}): '
            f'{listed(paths, self.max_names)}'
        )

    def _write(self, runner: Runner, by_reason: dict[str, list[str]]) -> None:
        """List all files that are left out, in the work folder."""
        rows = [(reason, path) for reason in by_reason for path in by_reason[reason]]
        for leaf in self._sets:
            for reason, paths in (getattr(leaf, 'left_out', None) or {}).items():
                rows += [(reason, str(Path(leaf.img_prefix, path))) for path in paths]
        file = Path(runner.work_dir, _FILE)
        if is_main_process() and (rows or file.exists()):
            text = ''.join(f'{reason}\t{path}\n' for reason, path in rows)
            write_whole(file, text)

    def _path(self, index: int) -> str:
        for leaf in self._sets:
            if index < len(leaf):
                return str(leaf.get_data_info(index)['img_path'])
            index -= len(leaf)
        raise IndexError(index)


def _loaders(dataset: Any) -> list:
    return list(image_loaders(getattr(dataset, 'pipeline', None)))
