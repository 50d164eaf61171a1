"""Accuracy of an ImageNet classifier on a data set with a part of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from medic_mm.registry import METRICS

#: Lists of class numbers that timm carries.
KNOWN = {'imagenet-a': 'imagenet_a_indices.txt', 'imagenet-r': 'imagenet_r_indices.txt'}


@METRICS.register_module()
class SubsetAccuracy(BaseMetric):
    """Top-1 and top-5 accuracy in percent, among the classes of the data set alone.

    Args:
        classes: For each class of the data set, in its order (that of the sorted folder
            names), the number of the same class in the classifier. A list; a text file
            with one number a line; or ``'imagenet-a'``, ``'imagenet-r'``, whose 200
            classes timm knows.
        topk: Which of the best scores may be right.
        collect_device: As in the host.
        prefix: As in the host.

    Raises:
        ValueError: for a list with doubles, a list or file that is none, or data with
            more classes than the list.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        classes: Sequence[int] | str,
        topk: Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = torch.tensor(class_numbers(classes))
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note the rank of the right class for each image."""
        for sample in data_samples:
            scores, label = sample['pred_score'].cpu(), int(sample['gt_label'])
            if label >= len(self.classes) or int(self.classes.max()) >= len(scores):
                raise ValueError(
                    f'SubsetAccuracy has {len(self.classes)} classes up to number '
                    f'{int(self.classes.max())}, but the data set has class {label} '
                    f'and the classifier {len(scores)} classes: give the list of this '
                    'data set by classes=FILE'
                )
            scores = scores[self.classes]
            self.results.append(int((scores > scores[label]).sum()))

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """``top1`` and ``top5``."""
        ranks = torch.tensor(results)
        return {f'top{k}': float((ranks < k).double().mean() * 100) for k in self.topk}


def class_numbers(classes: Sequence[int] | str) -> list[int]:
    """The list of class numbers that a setting stands for.

    Raises:
        ValueError: where it is no list of different numbers.
    """
    if isinstance(classes, str):
        if classes in KNOWN:
            text = resources.files('timm.data').joinpath('_info', KNOWN[classes])
            words = text.read_text().split()
        elif Path(classes).is_file():
            words = Path(classes).read_text().split()
        else:
            raise ValueError(
                f'classes={classes!r} is no file: use {", ".join(map(repr, KNOWN))}, a '
                'list, or a text file with one class number a line'
            )
        if not all(word.isdigit() for word in words):
            raise ValueError(f'{classes} must hold one class number a line')
        classes = [int(word) for word in words]
    numbers = list(classes)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f'classes={classes!r} must be different class numbers')
    return numbers
