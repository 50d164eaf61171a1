"""A run that diverged stops, and never replaces a good checkpoint by a broken one."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from medic_mm.checks import require_number
from medic_mm.registry import HOOKS

_DIVERGED = 'training diverged: at iteration'
_REMEDY = (
    'go on from an earlier checkpoint with a lower learning rate or gradient clipping'
)


@HOOKS.register_module()
class StopOnNaNHook(Hook):
    """Stops training at NaN or infinite losses or weights.

    The losses are looked at every ``interval`` iterations, so that a GPU need not wait
    for the host at each one. The weights are looked at before each checkpoint is
    written: one that is not finite is not written, whatever ``interval`` is, and the
    last good checkpoint stays. To refuse a single step with bad gradients before it
    reaches the weights, use the optimizer wrapper's
    ``clip_grad=dict(max_norm=..., error_if_nonfinite=True)``.

    Args:
        interval: Iterations from one look at the losses to the next.

    Raises:
        ValueError: for an ``interval`` below 1.
        FloatingPointError: when training diverged; names iteration and values.
    """

    def __init__(self, interval: int = 50) -> None:
        require_number(self, 'interval', interval, low=1, integer=True)
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the losses when due."""
        if not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        bad = [name for name, value in outputs.items() if not _is_finite(value)]
        if bad:
            values = {name: torch.as_tensor(outputs[name]).detach() for name in bad}
            shown = ', '.join(f'{name}={value}' for name, value in values.items())
            _stop(runner, f'{_DIVERGED} {runner.iter + 1}, {shown}: {_REMEDY}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights."""
        for part in ('state_dict', 'ema_state_dict'):
            for name, value in checkpoint.get(part, {}).items():
                if not _is_finite(value):
                    _stop(
                        runner,
                        f'{_DIVERGED} {checkpoint["meta"]["iter"]}, {name} has NaN or '
                        f'infinite values, no checkpoint was written: {_REMEDY}',
                    )


def _stop(runner: Runner, message: str) -> NoReturn:
    # an error alone would not reach the log file, which tools/report.py reads
    runner.logger.error(message)
    raise FloatingPointError(message)


def _is_finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())
