"""How coherent in space the clusters of an image are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.masking.basic import check_grid


@dataclass(frozen=True)
class SpatialCoherence:
    """Two measures per image; the lower, the more coherent.

    Attributes:
        components: float ``(B,)``. Connected components (4 neighbours) per cluster that
            is not empty, on average; 1 = every cluster is in one piece.
        boundary: float ``(B,)``. Share of the pairs of neighbouring patches that are in
            different clusters, 0 to 1.
    """

    components: Tensor
    boundary: Tensor


@torch.no_grad()
def spatial_coherence(ids: Tensor, grid: tuple[int, int]) -> SpatialCoherence:
    """Measure clusters by their pieces and their borders on the grid.

    Args:
        ids: long ``(B, L)``, the cluster of each patch, row-major.
        grid: Rows and columns of patches; L = rows * columns.

    Raises:
        UserError: where ``grid`` does not fit ``ids``.
    """
    check_grid('spatial_coherence', grid)
    rows, columns = grid
    if ids.ndim != 2 or ids.shape[1] != rows * columns:
        raise UserError(
            f'grid={tuple(grid)} has {rows * columns} patches, but the ids have the '
            f'shape {tuple(ids.shape)}: it must be (B, {rows * columns})'
        )
    canvas = ids.view(-1, rows, columns)
    below = canvas[:, 1:] == canvas[:, :-1]
    right = canvas[:, :, 1:] == canvas[:, :, :-1]
    pieces = _pieces(below, right, ids)
    ordered = ids.sort(1).values
    clusters = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    joined = torch.cat([below.flatten(1), right.flatten(1)], dim=1)
    boundary = (~joined).sum(1) / max(joined.shape[1], 1)
    return SpatialCoherence(pieces / clusters, boundary)


def _pieces(below: Tensor, right: Tensor, ids: Tensor) -> Tensor:
    """Connected components of each image: patches that keep the label they start with.

    Every patch takes the lowest label among itself and the neighbours in its cluster
    until nothing changes.
    """
    batch, rows, columns = len(ids), below.shape[1] + 1, below.shape[2]
    start = torch.arange(rows * columns, device=ids.device).view(rows, columns)
    label = start.repeat(batch, 1, 1)
    while True:
        before = label.clone()
        for joined, one, other in (
            (below, label[:, 1:], label[:, :-1]),
            (right, label[:, :, 1:], label[:, :, :-1]),
        ):
            lower = torch.where(joined, torch.minimum(one, other), rows * columns)
            one.copy_(torch.minimum(one, lower))
            other.copy_(torch.minimum(other, lower))
        if torch.equal(before, label):
            return (label == start).flatten(1).sum(1)


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
