"""Evolved masks: from scattered patches early in training to whole parts late."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.masking.basic import check_count
from medic_mm.masking.clustering_em import cluster_em
from medic_mm.masking.clustering_hierarchical import cluster_hierarchical

METHODS: dict[str, Callable[..., Tensor]] = dict(
    em=cluster_em, hierarchical=cluster_hierarchical
)
NOISES = ('grid', 'random')
_SCHEDULE = "the masks' schedule"
_GIVEN = ('attention', 'num_clusters', 'grid', 'generator')


@torch.no_grad()
def evolved_mask(
    attention: Tensor,
    grid: tuple[int, int],
    num_masked: int,
    alpha: float,
    num_clusters: int,
    method: str = 'hierarchical',
    generator: Generator | None = None,
    noise: str = 'grid',
    **clustering: Any,
) -> Tensor:
    """Hide the patches with the highest mix of noise and part scores.

    The score of a patch is ``(1 - alpha) * noise + alpha * part``. Each cluster of
    patches has one random ``part`` in 0..1. So ``alpha=1`` hides whole parts, of which
    the last is cut at random to meet the count; ``alpha=0`` with grid noise hides
    regular corners of 2x2 cells. Equal scores are ordered at random (a fixed order
    would favour the top of the image).

    From the released code of Evolved Part Masking (CVPR 2023) and MEDiC, which use EM
    and grid noise. There all images of a batch share the grid noise; here each has its
    own. MEDiC's hierarchical clustering is in its demo alone.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks.
        grid: Rows and columns of patches; L = rows * columns.
        num_masked: Hidden patches per image, 0 to L.
        alpha: Weight of the parts, 0 to 1; see :func:`evolved_alpha`.
        num_clusters: Parts, 1 to L; EM may find fewer.
        method: ``'em'`` (:func:`cluster_em`) or ``'hierarchical'``
            (:func:`cluster_hierarchical`).
        generator: Source of all randomness, on any device. Default: the global
            generator of the attention's device.
        noise: ``'grid'`` (four values per image, one per corner of a 2x2 cell) or
            ``'random'`` (one per patch).
        **clustering: More settings of the method, such as ``spatial_bias`` or
            ``kappa``.

    Returns:
        bool ``(B, L)``, row-major, on the attention's device, True = hidden, exactly
        ``num_masked`` per row.

    Raises:
        UserError: for a setting out of range or unknown to the method, or a ``grid``
            that does not fit the attention.
    """
    length = check_count('evolved_mask', len(attention), grid, num_masked)
    if attention.shape[-1] != length:
        raise UserError(
            f'grid={tuple(grid)} has {length} patches but attention of the shape '
            f'{tuple(attention.shape)} is between {attention.shape[-1]}'
        )
    require_number('evolved_mask', 'alpha', alpha, low=0, high=1)
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown: use 'em' or 'hierarchical'")
    if noise not in NOISES:
        raise UserError(f"noise={noise!r} is unknown: use 'grid' or 'random'")
    known = set(inspect.signature(METHODS[method]).parameters) - set(_GIVEN)
    if unknown := sorted(set(clustering) - known):
        raise UserError(
            f'{unknown[0]}={clustering[unknown[0]]!r} is not a setting of '
            f'method={method!r}, which has {", ".join(sorted(known))}'
        )
    if method == 'em':
        ids = cluster_em(attention, num_clusters, generator=generator, **clustering)
    else:
        ids = cluster_hierarchical(attention, num_clusters, grid=grid, **clustering)

    def draw(columns: int) -> Tensor:
        device = generator.device if generator is not None else attention.device
        values = torch.rand(len(ids), columns, generator=generator, device=device)
        return values.to(attention.device)

    scattered = draw(length)
    if noise == 'grid':
        scattered = draw(4).gather(1, _corners(grid, ids))
    score = (1 - alpha) * scattered + alpha * draw(num_clusters).gather(1, ids)
    return _hide_highest(score, num_masked, draw(length))


def _corners(grid: tuple[int, int], like: Tensor) -> Tensor:
    """The corner of its 2x2 cell, 0..3, that each patch is, ``(B, L)``."""
    patches = torch.arange(like.shape[1], device=like.device)
    rows, columns = patches // grid[1], patches % grid[1]
    return (rows % 2 * 2 + columns % 2).expand_as(like)


def _hide_highest(score: Tensor, num_masked: int, tie: Tensor) -> Tensor:
    order = tie.argsort(1)
    ranked = score.gather(1, order).argsort(dim=1, descending=True, stable=True)
    chosen = order.gather(1, ranked[:, :num_masked])
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, chosen, True)


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
    _check_epoch(epoch, epochs)
    require_number(_SCHEDULE, 'gamma', gamma, low=0)
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
    _check_epoch(epoch, epochs)
    for name, value in (('first', first), ('last', last), ('spread', spread)):
        require_number(_SCHEDULE, name, value, low=0, integer=True)
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


def _check_epoch(epoch: int, epochs: int) -> None:
    for name, value in (('epoch', epoch), ('epochs', epochs)):
        require_number(_SCHEDULE, name, value, integer=True)
    if not 0 <= epoch < epochs:
        raise UserError(
            f'epoch={epoch} is out of range: epochs count from 0, so a training of '
            f'{epochs} has 0..{epochs - 1}'
        )
