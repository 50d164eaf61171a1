"""Accuracy of an ImageNet classifier on a data set with a part of its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from medic_mm.checks import require_numbers
from medic_mm.errors import UserError
from medic_mm.helpers import listed
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
        UserError: for a list with doubles, a list or file that is none, or data with
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
        if not isinstance(classes, str):
            require_numbers(self, 'classes', classes, low=0, integer=True)
        require_numbers(self, 'topk', topk, low=1, integer=True)
        self.classes = torch.tensor(class_numbers(classes))
        self.topk = tuple(topk)
        self.known = classes if isinstance(classes, str) and classes in KNOWN else ''

    def check_classes(self, names: Sequence[str], where: str = 'the data set') -> None:
        """Compare the list with the classes of a data set, before anything is run.

        Args:
            names: Names of the classes, or of their folders, in the order of their
                numbers. Where they are WordNet numbers and the list is one that timm
                knows, each is compared.
            where: The data set, for messages.

        Raises:
            UserError: for another number of classes, or another class at a place.
        """
        if len(names) != len(self.classes):
            raise UserError(
                f'SubsetAccuracy lists {len(self.classes)} classes, but {where} has '
                f'{len(names)} ({listed(names)}): give all of them a folder or a name '
                'in metainfo=dict(classes=[...]), or the list of this data set by '
                'classes=FILE'
            )
        if not self.known or not all(re.fullmatch(r'n\d{8}', name) for name in names):
            return
        text = resources.files('timm.data').joinpath('_info', 'imagenet_synsets.txt')
        synsets = text.read_text().split()
        for number, name in zip(self.classes.tolist(), names, strict=True):
            if synsets[number] != name:
                raise UserError(
                    f'{where} has the class {name} where {self.known} has '
                    f'{synsets[number]}: its folders must be those of {self.known}'
                )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note the rank of the right class for each image."""
        for sample in data_samples:
            require_label(sample, 'SubsetAccuracy')
            scores, label = sample['pred_score'].cpu(), int(sample['gt_label'])
            if label >= len(self.classes) or int(self.classes.max()) >= len(scores):
                raise UserError(
                    f'SubsetAccuracy has {len(self.classes)} classes up to number '
                    f'{int(self.classes.max())}, but the data set has class {label} '
                    f'and the classifier {len(scores)} classes: give the list of this '
                    'data set by classes=FILE'
                )
            scores = scores[self.classes]
            self.results.append(int((scores > scores[label]).sum()))

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """``top1`` and ``top5``."""
        if not results:
            raise UserError('SubsetAccuracy has no images: the data set is empty')
        ranks = torch.tensor(results)
        return {f'top{k}': float((ranks < k).double().mean() * 100) for k in self.topk}


def require_label(sample: Any, metric: str) -> None:
    """Refuse a sample without a class.

    Raises:
        UserError: names the metric.
    """
    if sample.get('gt_label') is None:
        raise UserError(
            f'{metric} needs the class of each image (gt_label is missing): use a data '
            'set with labels, for example medic_mm.ImageFolder with with_label=True'
        )


def class_numbers(classes: Sequence[int] | str) -> list[int]:
    """The list of class numbers that a setting stands for.

    Raises:
        UserError: where it is no list of different numbers.
    """
    if isinstance(classes, str):
        if classes in KNOWN:
            text = resources.files('timm.data').joinpath('_info', KNOWN[classes])
            words = text.read_text().split()
        elif Path(classes).is_file():
            words = Path(classes).read_text().split()
        else:
            raise UserError(
                f'classes={classes!r} is not a file: use '
                f'{", ".join(map(repr, KNOWN))}, a list, or a text file with one '
                'class number a line'
            )
        if not all(word.isdigit() for word in words):
            raise UserError(f'{classes} must hold one class number a line')
        classes = [int(word) for word in words]
    numbers = list(classes)
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f'classes={classes!r} must be different class numbers')
    return numbers
