"""How clusters and evolved masks change over the epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from medic_mm.masking import (
    cluster_em,
    cluster_hierarchical,
    evolved_alpha,
    evolved_mask,
    evolved_num_clusters,
    spatial_coherence,
)
from medic_mm.pictures.masks import evolved_kinds


@dataclass(frozen=True)
class EvolutionSettings:
    """What is drawn of a training.

    Attributes:
        num_masked: Hidden patches per image.
        epochs: Length of the training.
        at: The epochs shown, from 0.
        gamma: Of :func:`evolved_alpha`.
        first: Clusters in the first epoch.
        last: Clusters in the last epoch.
        spatial_bias: Weight of the distance in ``'HC + bias'``.
        seed: Of all draws, the same at each epoch.
    """

    num_masked: int
    epochs: int = 300
    at: tuple[int, ...] = (0, 25, 50, 100, 200, 299)
    gamma: float = 0.2
    first: int = 40
    last: int = 10
    spatial_bias: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """Clusters and masks by one method at one epoch.

    Attributes:
        method: ``'EM'``, ``'HC'`` or ``'HC + bias'``.
        epoch: From 0.
        num_clusters: K by the schedule; EM may find fewer.
        alpha: Weight of the clusters by the schedule.
        ids: long ``(B, L)``, the cluster of each patch.
        masks: bool ``(B, L)``, True = hidden, drawn from these clusters.
        components: ``(B,)``; see :class:`SpatialCoherence`.
        boundary: ``(B,)``; likewise.
        largest: ``(B,)``, patches in the largest cluster.
    """

    method: str
    epoch: int
    num_clusters: int
    alpha: float
    ids: Tensor
    masks: Tensor
    components: Tensor
    boundary: Tensor
    largest: Tensor


def spread_epochs(epochs: int) -> tuple[int, ...]:
    """Six epochs to show, denser at the start: 0, 25, 50, 100, 200, 299 of 300."""
    wanted = (0, epochs // 12, epochs // 6, epochs // 3, 2 * epochs // 3, epochs - 1)
    return tuple(sorted(set(wanted)))


def evolve(
    attention: Tensor, grid: tuple[int, int], settings: EvolutionSettings
) -> list[Stage]:
    """Cluster and mask the same attention as at each epoch, by each method.

    In a training from the student's attention, that changes too; with a teacher's, the
    schedule alone does, as here.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks.
        grid: Rows and columns of patches; L = rows * columns.
        settings: As named.

    Returns:
        All epochs of the first method, then of the next.

    Raises:
        ValueError: for a setting out of range.
    """
    stages = []
    for name, kind in evolved_kinds(settings.spatial_bias).items():
        for epoch in settings.at:
            alpha = evolved_alpha(epoch, settings.epochs, settings.gamma)
            clusters = evolved_num_clusters(
                epoch, settings.epochs, settings.first, settings.last
            )
            # EM's centres are drawn first, so the same seed finds the mask's clusters
            ids = _cluster(attention, clusters, grid, settings.seed, **kind)
            masks = evolved_mask(
                attention,
                grid,
                settings.num_masked,
                alpha,
                clusters,
                generator=Generator().manual_seed(settings.seed),
                **kind,
            )
            found = spatial_coherence(ids, grid)
            largest = F.one_hot(ids, clusters).sum(1).amax(1)
            stages.append(
                Stage(
                    *(name, epoch, clusters, alpha, ids, masks),
                    *(found.components, found.boundary, largest),
                )
            )
    return stages


def _cluster(
    attention: Tensor,
    clusters: int,
    grid: tuple[int, int],
    seed: int,
    method: str,
    spatial_bias: float = 0.0,
) -> Tensor:
    if method == 'em':
        generator = Generator().manual_seed(seed)
        return cluster_em(attention, clusters, generator=generator)
    return cluster_hierarchical(
        attention, clusters, spatial_bias=spatial_bias, grid=grid
    )


def follow_clusters(maps: Sequence[Tensor]) -> list[Tensor]:
    """Give clusters of several maps of one image the same number where they overlap.

    The first map keeps its numbers. In each other map, the clusters take the numbers of
    the map before it, pair by pair, the largest overlap first; what is left over gets
    numbers that are not in use. So a part keeps its colour.

    Args:
        maps: long ``(L,)`` each.

    Returns:
        The same partitions with other numbers.
    """
    followed = [maps[0]]
    for ids in maps[1:]:
        followed.append(_renumber(ids, followed[-1]))
    return followed


def _renumber(ids: Tensor, before: Tensor) -> Tensor:
    overlap = F.one_hot(ids).T @ F.one_hot(before)  # (clusters, clusters before)
    names: dict[int, int] = {}
    order = overlap.flatten().argsort(descending=True, stable=True).tolist()
    for place in order:
        ours, theirs = divmod(place, overlap.shape[1])
        if overlap[ours, theirs] == 0:
            break
        if ours not in names and theirs not in names.values():
            names[ours] = theirs
    free = (n for n in range(2 * len(ids)) if n not in set(names.values()))
    for ours in ids.unique().tolist():
        if ours not in names:
            names[ours] = next(free)
    return torch.tensor([names[number] for number in ids.tolist()])


def table_of(stages: Sequence[Stage]) -> list[dict]:
    """One row a method and epoch: the means over the images, and those of each."""
    rows = []
    for stage in stages:
        measures = dict(
            components=stage.components,
            boundary=stage.boundary,
            largest=stage.largest.float(),
        )
        rows.append(
            dict(
                method=stage.method,
                epoch=stage.epoch,
                num_clusters=stage.num_clusters,
                alpha=round(stage.alpha, 4),
                **{name: round(v.mean().item(), 4) for name, v in measures.items()},
                images={
                    name: [round(each, 4) for each in v.tolist()]
                    for name, v in measures.items()
                },
            )
        )
    return rows


def format_table(rows: Sequence[dict], patches: int) -> str:
    """The means of :func:`table_of` for the terminal."""
    lines = [
        f'{"":<10}{"epoch":>6}{"K":>4}{"alpha":>7}{"components":>12}{"boundary":>10}'
        f'{f"largest of {patches}":>16}'
    ]
    lines += [
        f'{row["method"]:<10}{row["epoch"]:6}{row["num_clusters"]:4}'
        f'{row["alpha"]:7.2f}{row["components"]:12.2f}{row["boundary"]:10.3f}'
        f'{row["largest"]:16.0f}'
        for row in rows
    ]
    return '\n'.join(lines)
