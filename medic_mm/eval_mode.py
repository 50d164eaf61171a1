"""Looking at a network in eval mode without leaving a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def eval_mode(module: nn.Module | None) -> Iterator[None]:
    """Eval mode inside; afterwards each module has the mode that it had."""
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    try:
        if module is not None:
            module.eval()
        yield
    finally:
        for part, training in modes:
            # train() may be overridden and touch children: set the flag alone
            part.training = training
