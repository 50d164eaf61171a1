"""Evolved masks: from scattered patches early in training to whole parts late."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.masking.clustering_em import cluster_em
from medic_mm.masking.clustering_hierarchical import cluster_hierarchical
from medic_mm.masking.ranges import check_count

METHODS: dict[str, Callable[..., Tensor]] = {
    'em': cluster_em,
    'hierarchical': cluster_hierarchical,
}
NOISES = ('grid', 'random')
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
    _check(attention, grid, num_masked, alpha, method, noise, clustering)
    if method == 'em':
        ids = cluster_em(attention, num_clusters, generator=generator, **clustering)
    else:
        ids = cluster_hierarchical(attention, num_clusters, grid=grid, **clustering)
    batch, length = ids.shape

    def draw(columns: int) -> Tensor:
        device = generator.device if generator is not None else attention.device
        values = torch.rand(batch, columns, generator=generator, device=device)
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


def _check(
    attention: Tensor,
    grid: tuple[int, int],
    num_masked: int,
    alpha: float,
    method: str,
    noise: str,
    clustering: Mapping[str, Any],
) -> None:
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
            f'{unknown[0]}={clustering[unknown[0]]!r} is no setting of '
            f'method={method!r}, which has {", ".join(sorted(known))}'
        )
