"""k-NN accuracy of the student while it trains."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner, autocast
from torch import nn

from medic_mm.checks import require_number, require_numbers
from medic_mm.evaluation.features import (
    TokenEncoder,
    check_feature_names,
    extract_features,
)
from medic_mm.evaluation.knn import check_settings
from medic_mm.evaluation.knn_metrics import knn_metrics
from medic_mm.evaluation.loaders import labelled_loaders
from medic_mm.helpers import unwrapped
from medic_mm.randomness import preserved_randomness
from medic_mm.registry import HOOKS


@HOOKS.register_module()
class KNNHook(Hook):
    """Evaluates the backbone by k-NN before the first step and every few epochs.

    The first point, at step 0, is the value before training: of the random
    initialisation, unless ``load_from`` was set. A resumed run does not repeat it.
    Training goes on as if the hook were not there: generators and modes are restored.
    Weights are the student's own, also beside an EMA hook. In a run with
    ``AmpOptimWrapper`` features are computed in its precision.

    Each point goes to all visualisation backends and to the message hub (so into
    checkpoints) as ``knn/<feature>_top1_k<k>`` and ``knn/<feature>_top5_k<k>``, in
    percent, and ``knn/<feature>_rankme``; and in one line to the log. The message hub
    also has ``knn/step``, the steps of the points (epochs, or iterations).

    Args:
        train_dataloader: Config of the bank's loader: labelled images with the test
            transforms. Sampler and collation default to those that k-NN needs.
        test_dataloader: Config of the queries' loader likewise.
        interval: Epochs between points; the last epoch always has one.
        k: Number of neighbours, or several.
        temperature: Of the weights ``exp(similarity / temperature)``.
        features: ``'cls'`` (class token), ``'mean'`` (mean patch token), or both.
        by_epoch: False: ``interval`` and steps count iterations.

    Raises:
        ValueError: before the first step, for settings out of range, data without
            labels, an unknown number of classes, or a backbone without raw tokens.
    """

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        interval: int = 1,
        k: int | Sequence[int] = 20,
        temperature: float = 0.07,
        features: Sequence[str] = ('cls', 'mean'),
        by_epoch: bool = True,
    ) -> None:
        require_numbers('', 'k', k, low=1, integer=True)
        ks = (k,) if isinstance(k, int) else tuple(k)
        check_settings(ks, temperature)
        require_number(self, 'interval', interval, low=1, integer=True)
        check_feature_names(features)
        self.loader_configs = (train_dataloader, test_dataloader)
        self.interval = interval
        self.ks = ks
        self.temperature = temperature
        self.features = tuple(features)
        self.by_epoch = by_epoch

    def before_train(self, runner: Runner) -> None:
        """Build the loaders, check everything, and evaluate a fresh run."""
        model = unwrapped(runner.model)
        self._encode = TokenEncoder(model, self.features)
        with preserved_randomness(_device(model)):
            self._loaders, self._num_classes = labelled_loaders(
                self.loader_configs, runner.seed
            )
        if runner.iter == 0:
            self._evaluate(runner, 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate where the interval says so, and after the last epoch."""
        if self.by_epoch and (
            self.every_n_epochs(runner, self.interval)
            or self.is_last_train_epoch(runner)
        ):
            self._evaluate(runner, runner.epoch + 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Evaluate where the interval says so, and after the last iteration."""
        if not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval)
            or self.is_last_train_iter(runner)
        ):
            self._evaluate(runner, runner.iter + 1)

    def _evaluate(self, runner: Runner, step: int) -> None:
        start = time.perf_counter()
        model: Any = unwrapped(runner.model)
        device = _device(model)
        with preserved_randomness(device), _precision(runner, device):
            train, test = (
                extract_features(self._encode, model.data_preprocessor, loader)
                for loader in self._loaders
            )
        metrics = knn_metrics(
            train, test, self._num_classes, self.ks, self.temperature, device
        )
        scalars = {
            f'knn/{feature}_{name}': value
            for feature, found in metrics.items()
            for name, value in found.items()
        }
        sizes = f'{len(train.labels)} train and {len(test.labels)} test images'
        seconds = time.perf_counter() - start
        self._log(runner, step, scalars, f'{sizes}, {seconds:.1f} s')

    def _log(
        self, runner: Runner, step: int, scalars: dict[str, float], note: str
    ) -> None:
        # the message hub keeps NaN, so that all curves have a value for each step
        runner.message_hub.update_scalars({'knn/step': step, **scalars})
        finite = {key: value for key, value in scalars.items() if math.isfinite(value)}
        if finite:
            runner.visualizer.add_scalars(finite, step=step)
        unit = 'epoch' if self.by_epoch else 'iteration'
        when = f'{unit} {step}' if step else 'before training'
        words = [f'{key[4:]} {value:.2f}' for key, value in scalars.items()]
        runner.logger.info(f'k-NN {when}: {", ".join(words)} ({note})')
        if len(finite) < len(scalars):
            runner.logger.warning(
                f'k-NN {when}: features have NaN or infinite values, so they have no '
                'accuracy: the network diverged'
            )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _precision(
    runner: Runner, device: torch.device
) -> contextlib.AbstractContextManager:
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, AmpOptimWrapper):
        return autocast(device_type=device.type, dtype=wrapper.cast_dtype)
    return contextlib.nullcontext()
