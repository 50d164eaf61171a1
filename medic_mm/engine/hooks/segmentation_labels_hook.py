"""Masks that hold classes which the segmentation head does not have."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from medic_mm.datasets.segmentation_files import check_masks, wrong_class
from medic_mm.engine.hooks.classes_hook import (
    check_test_classes,
    check_training_classes,
)
from medic_mm.errors import FileError
from medic_mm.helpers import unwrapped
from medic_mm.registry import HOOKS


@HOOKS.register_module()
class SegmentationLabelsHook(Hook):
    """Compares the classes of data sets and masks with the segmentation head.

    A class too many ends in an assertion of the GPU at the loss, or is left out of the
    mean IoU in silence. Here it is one sentence. The classes are compared before the
    first step, as by :class:`medic_mm.engine.hooks.ClassesHook`, and some masks are
    opened, see :func:`medic_mm.datasets.segmentation_files.check_masks`. The others
    follow batch by batch while they are still on the CPU.

    Raises:
        UserError: for a data set with other classes than the head, or a mask that is
            missing or does not fit; it names the file.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the classes, and look at some masks."""
        check_training_classes(runner)
        head = _head(runner)
        if head is not None:
            check_masks(runner.train_dataloader.dataset, 'training', head)
            if runner.val_loop is not None:
                check_masks(runner.val_loop.dataloader.dataset, 'validation', head)

    def before_test(self, runner: Runner) -> None:
        """Compare the classes, and look at some masks."""
        check_test_classes(runner)
        head = _head(runner)
        if head is not None:
            check_masks(runner.test_dataloader.dataset, 'test', head)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Look at the masks of the batch."""
        head = _head(runner)
        if head is None or not isinstance(data_batch, dict):
            return
        for sample in data_batch.get('data_samples') or []:
            _check_sample(sample, head)

    before_val_iter = before_test_iter = before_train_iter


def _head(runner: Runner) -> nn.Module | None:
    head = getattr(unwrapped(runner.model), 'decode_head', None)
    # a cascade of heads predicts by its last one
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _check_sample(sample: Any, head: nn.Module) -> None:
    if isinstance(sample, (list, tuple)):  # views of one image, for testing
        sample = sample[0]
    if 'gt_sem_seg' not in sample:
        return
    mask = sample.gt_sem_seg.data
    path = sample.get('seg_map_path', 'of an image')
    if mask.ndim != 3 or mask.shape[0] != 1:
        raise FileError(
            f'the mask {path} has the shape {tuple(mask.shape)}: a mask has one '
            'channel, whose values are the numbers of classes'
        )
    wrong = mask[(mask >= head.num_classes) | (mask < 0)]
    wrong = wrong[wrong != head.ignore_index]
    if len(wrong):
        raise FileError(wrong_class(path, int(wrong[0]), head))
