"""Classes of data sets, head and checkpoint, compared before the first step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from medic_mm.datasets.class_lists import (
    ClassList,
    check_settings,
    class_list,
    compare_classes,
    leaves,
    require_known,
    require_labels_below,
)
from medic_mm.errors import UserError
from medic_mm.evaluation.subset_accuracy import SubsetAccuracy
from medic_mm.helpers import listed, type_name, unwrapped
from medic_mm.registry import DATASETS, HOOKS

_HEADS = ('head', 'decode_head', 'auxiliary_head')


@HOOKS.register_module()
class ClassesHook(Hook):
    """Compares the classes of train, validation and test data, head and checkpoint.

    Names are compared where both sides have them, else their number, see
    :func:`medic_mm.datasets.class_lists.compare_classes`. The test data are compared
    before a training too, where they are there. What is measured by
    ``SubsetAccuracy`` is compared with its own list. The command-line tools add this
    hook.

    Raises:
        UserError: before the first step, for classes that differ; it names them.
    """

    # before what evaluates at the start
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._trained: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the classes that a checkpoint was trained on."""
        self._trained = (checkpoint.get('meta') or {}).get('dataset_meta')

    def before_train(self, runner: Runner) -> None:
        """Compare all that is there."""
        trained = self._trained if runner.cfg.get('resume') else None
        check_training_classes(runner, trained)

    def before_test(self, runner: Runner) -> None:
        """Compare the test data with the head and the checkpoint."""
        check_test_classes(runner, self._trained)


def check_training_classes(runner: Runner, trained: dict | None = None) -> None:
    """Compare the data of a training with each other, the head and a checkpoint.

    Args:
        runner: Its loops are built.
        trained: ``dataset_meta`` of the checkpoint that a run goes on from.
    """
    datasets = {'train': runner.train_dataloader.dataset}
    if runner.val_loop is not None:
        subset = _subset_metric(getattr(runner.val_loop, 'evaluator', None))
        validation = runner.val_loop.dataloader.dataset
        if subset is None:
            datasets['validation'] = validation
        else:
            _check_subset(runner, subset, validation, 'validation')
    test = _test_dataset(runner)
    if test is not None:
        datasets['test'] = test
    _check(runner, datasets, trained)


def check_test_classes(runner: Runner, trained: dict | None = None) -> None:
    """Compare the test data with the head and the checkpoint's ``dataset_meta``."""
    dataset = runner.test_dataloader.dataset
    loop = getattr(runner, 'test_loop', None)
    subset = _subset_metric(getattr(loop, 'evaluator', None))
    if subset is not None:
        _check_subset(runner, subset, dataset, 'test')
    else:
        _check(runner, {'test': dataset}, trained)


def _check(runner: Runner, datasets: dict[str, Any], trained: dict | None) -> None:
    count = compare_classes(datasets)
    heads = list(_heads(runner.model))
    first = next(
        (name for name, x in datasets.items() if any(map(class_list, leaves(x)))), ''
    )
    for setting, classes in heads:
        if count not in (None, classes):
            raise UserError(
                f'the {first} data set has {count} classes but model.{setting} has '
                f'num_classes={classes}: set model.{setting}.num_classes={count}'
            )
        for name, dataset in datasets.items() if count is None else ():
            for part in leaves(dataset):
                require_labels_below(part, classes, f'the {name} data set')
    if trained and trained.get('classes') and heads:
        for name, dataset in datasets.items():
            for part in leaves(dataset):
                found = class_list(part)
                if found is not None:
                    require_known(found, ClassList.of_checkpoint(trained), name)


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Settings of the heads and their numbers of classes."""
    model = unwrapped(model)
    for setting in _HEADS:
        heads = getattr(model, setting, None)
        several = isinstance(heads, nn.ModuleList)
        for place, head in enumerate(heads if several else [heads]):
            classes = getattr(head, 'num_classes', None)
            if isinstance(classes, int):
                yield f'{setting}[{place}]' if several else setting, classes


def _test_dataset(runner: Runner) -> Any:
    """The test data set of a training, which does not build it; None without one."""
    config = getattr(runner, 'cfg', None) or {}
    loaders = [config.get(f'{name}_dataloader') for name in ('test', 'val', 'train')]
    settings, *others = (
        loader.get('dataset') if isinstance(loader, dict) else None
        for loader in loaders
    )
    metrics = config.get('test_evaluator') or []
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    subset = any(type_name(metric) == 'SubsetAccuracy' for metric in metrics)
    if settings is None or subset or _same(settings) in map(_same, others):
        return None
    settings = copy.deepcopy(settings)
    if 'pipeline' in settings:
        settings['pipeline'] = []
    try:
        check_settings(settings)
        return DATASETS.build(settings)
    except FileNotFoundError as error:
        runner.logger.warning(
            f'The classes of the test data are not compared with those of training: '
            f'{error}'
        )
        return None


def _same(settings: dict | None) -> dict:
    return {k: v for k, v in (settings or {}).items() if k != 'pipeline'}


def _subset_metric(evaluator: Any) -> SubsetAccuracy | None:
    metrics = getattr(evaluator, 'metrics', None) or []
    return next((x for x in metrics if isinstance(x, SubsetAccuracy)), None)


def _check_subset(
    runner: Runner, metric: SubsetAccuracy, dataset: Any, name: str
) -> None:
    for part in leaves(dataset):
        found = class_list(part)
        if found is not None:
            metric.check_classes(found.keys or found.names, f'the {name} data set')
    for setting, classes in _heads(runner.model):
        beyond = [number for number in metric.classes.tolist() if number >= classes]
        if beyond:
            raise UserError(
                f'SubsetAccuracy lists the class numbers {listed(beyond)}, but '
                f'model.{setting} has num_classes={classes}: give classes=FILE with '
                'the numbers of this classifier'
            )
