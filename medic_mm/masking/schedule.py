"""How evolved masks change over training: pure functions of the epoch."""

from __future__ import annotations

import torch
from torch import Generator

from medic_mm.checks import require_number
from medic_mm.errors import UserError

_OWNER = "the masks' schedule"


def evolved_alpha(epoch: int, epochs: int, gamma: float = 0.2) -> float:
    """Weight of the parts in the score of a mask: ``((epoch + 1) / epochs) ** gamma``.

    Gamma is 0.2 in the released MEDiC config, 0.5 in Evolved Part Masking; 0 is 1 at
    every epoch. The last epoch has 1: parts alone.

    Args:
        epoch: From 0 to ``epochs - 1``.
        epochs: Length of the training.
        gamma: At least 0.

    Raises:
        UserError: for an epoch out of range or a negative gamma.
    """
    _check(epoch, epochs)
    require_number(_OWNER, 'gamma', gamma, low=0)
    return float(((epoch + 1) / epochs) ** gamma)


def evolved_num_clusters(
    epoch: int,
    epochs: int,
    first: int = 40,
    last: int = 10,
    spread: int = 0,
    generator: Generator | None = None,
) -> int:
    """Number of clusters: falls in a line from ``first`` to ``last``, rounded down.

    The released code of Evolved Part Masking and MEDiC adds 0, 1 or 2 at random in each
    batch (``spread=2`` here) and ends one step before ``last``, at
    ``last + (first - last) / epochs``. Here the last epoch has ``last``, in a training
    of few epochs too.

    Args:
        epoch: From 0 to ``epochs - 1``.
        epochs: Length of the training.
        first: Clusters in the first epoch, of several.
        last: Clusters in the last epoch, at least 1.
        spread: Largest random addition, uniform in 0..spread; 0 draws nothing.
        generator: Source of the addition, on the CPU. Default: the global generator.

    Raises:
        UserError: for an epoch out of range, ``first`` below ``last``, ``last`` below
            1 or a negative ``spread``.
    """
    _check(epoch, epochs)
    for name, value in (('first', first), ('last', last), ('spread', spread)):
        require_number(_OWNER, name, value, low=0, integer=True)
    if not 1 <= last <= first:
        raise UserError(
            f'first={first} and last={last}: the number of clusters falls from first '
            'to last, so it must be that first >= last >= 1'
        )
    left, steps = epochs - 1 - epoch, max(epochs - 1, 1)
    number = last + (first - last) * left // steps
    if spread:
        number += int(torch.randint(spread + 1, (), generator=generator))
    return number


def _check(epoch: int, epochs: int) -> None:
    for name, value in (('epoch', epoch), ('epochs', epochs)):
        require_number(_OWNER, name, value, integer=True)
    if not 0 <= epoch < epochs:
        raise UserError(
            f'epoch={epoch} is out of range: epochs count from 0, so a training of '
            f'{epochs} has 0..{epochs - 1}'
        )
