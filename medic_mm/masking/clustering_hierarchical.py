"""Hierarchical clustering of attention, many images at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.masking.basic import check_grid
from medic_mm.masking.clustering_em import patch_descriptors

LINKAGES = ('centroid', 'average')

TIE = 1e-12
"""Similarities closer than this are equal. Rounding is far below it."""

CHUNK_BYTES = 5_000_000
"""Similarities held at a time on a CPU. Changes speed and memory, not results."""


@torch.no_grad()
def cluster_hierarchical(
    attention: Tensor,
    num_clusters: int,
    linkage: str = 'centroid',
    spatial_bias: float = 0.0,
    grid: tuple[int, int] | None = None,
    axis: str = 'rows',
) -> Tensor:
    """Merge the two most similar clusters until K are left, from single patches up.

    Similarity of two clusters, x the unit descriptors of patches and d the distance on
    the grid divided by its diagonal:

    - ``'centroid'``: cosine of the mean x of both, minus ``spatial_bias`` times d
      between their mean positions.
    - ``'average'``: mean of ``x_i . x_j - spatial_bias * d_ij`` over all pairs of
      patches across.

    Equal similarities (to 1e-12): the pair with the lowest patch in it is merged, then
    the one with the lowest patch in the other cluster.

    From the demo of the released MEDiC code: centroid linkage on rows without a bias
    (its training code has EM alone). The paper's summary speaks of hierarchical
    clustering "with relative position bias"; what that is in the paper is unknown. The
    form of the bias here and average linkage are this project's.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks. Computed in float64.
        num_clusters: K, 1 to L.
        linkage: ``'centroid'`` or ``'average'``.
        spatial_bias: Weight of the distance, at least 0; 0 is plain clustering.
        grid: Rows and columns of patches. Default: a square. Read only for the bias.
        axis: ``'rows'`` (what a patch looks at) or ``'columns'`` (who looks at it).

    Returns:
        long ``(B, L)``, ids 0..K-1, all of them used, in the order of each cluster's
        lowest patch.

    Raises:
        UserError: for a setting out of range, a ``grid`` that is not L patches, or
            attention of another shape or, on a CPU, with values that are not finite (on
            an accelerator they count as 0).
    """
    if linkage not in LINKAGES:
        raise UserError(f"linkage={linkage!r} is unknown: use 'centroid' or 'average'")
    require_number('cluster_hierarchical', 'spatial_bias', spatial_bias, low=0)
    if grid is not None:
        check_grid('cluster_hierarchical', grid)
    patches = patch_descriptors(attention, num_clusters, axis, torch.float64)
    places = _positions(grid, patches, spatial_bias)
    images = patches.shape[0]
    if patches.device.type == 'cpu':
        images = max(1, CHUNK_BYTES // (8 * patches.shape[1] ** 2))
    chunks = patches.split(max(images, 1))
    return torch.cat(
        [_cluster(chunk, num_clusters, linkage, places) for chunk in chunks]
    )


def _positions(
    grid: tuple[int, int] | None, patches: Tensor, spatial_bias: float
) -> Tensor | None:
    """``(L, 2)``, scaled so that distances are penalties; None without a bias."""
    length = patches.shape[1]
    side = round(length**0.5)
    rows, columns = grid if grid is not None else (side, side)
    if rows * columns != length and (grid is not None or spatial_bias):
        given = f'grid={tuple(grid)}' if grid is not None else 'grid=None (a square)'
        raise UserError(
            f'{given} does not fit attention between {length} patches: give the rows '
            'and columns whose product that is'
        )
    if not spatial_bias:
        return None
    steps = torch.arange(length, device=patches.device)
    places = torch.stack([steps // columns, steps % columns], dim=1).to(patches)
    diagonal = ((rows - 1) ** 2 + (columns - 1) ** 2) ** 0.5
    return places * (spatial_bias / max(diagonal, 1.0))


def _cluster(
    patches: Tensor, num_clusters: int, linkage: str, places: Tensor | None
) -> Tensor:
    similarity = patches @ patches.mT
    # products may differ in the last bit on both sides of the diagonal
    similarity = similarity.add(similarity.mT).mul_(0.5)
    if places is not None:
        exact = 'donot_use_mm_for_euclid_dist'
        similarity -= torch.cdist(places, places, compute_mode=exact)
    if linkage == 'average':
        clusters = _Clusters(similarity, _joint_count)
    elif places is None:
        clusters = _Clusters(similarity, _joint_length)
    else:
        means = _MeanPlaces(places, len(patches))
        clusters = _Clusters(similarity, _joint_length, means)
    for _ in range(patches.shape[1] - num_clusters):
        clusters.merge(*clusters.most_similar())
    return clusters.ids()


def _joint_count(ours: Tensor, theirs: Tensor, between: Tensor) -> Tensor:
    """Average linkage: a cluster weighs its number of patches."""
    return ours + theirs


def _joint_length(ours: Tensor, theirs: Tensor, between: Tensor) -> Tensor:
    """Centroid linkage: a cluster weighs the length of its summed descriptors."""
    squared = ours * ours + theirs * theirs + 2 * ours * theirs * between
    return squared.clamp_(min=1e-24).sqrt_()  # opposite descriptors sum to nothing


class _MeanPlaces:
    """Mean positions of the clusters, ``(2, B, L)``, rows before columns."""

    def __init__(self, places: Tensor, batch: int) -> None:
        self.mean = places.t()[:, None].repeat(1, batch, 1)
        self.size = places.new_ones(batch, len(places))

    def distances(self, index: Tensor) -> Tensor:
        """From one cluster of each image ``(B, 1)`` to all, ``(B, L)``."""
        away = self.mean - self.mean.gather(2, index.expand(2, -1, -1))
        down, across = away.square_()
        return (down + across).sqrt_()

    def merge(self, first: Tensor, second: Tensor) -> None:
        """Make cluster ``second`` of each image part of ``first``, ``(B, 1)`` each."""
        ours, theirs = self.size.gather(1, first), self.size.gather(1, second)
        first_of_both = first.expand(2, -1, -1)
        total = ours * self.mean.gather(2, first_of_both)
        total += theirs * self.mean.gather(2, second.expand(2, -1, -1))
        self.mean.scatter_(2, first_of_both, total / (ours + theirs))
        self.size.scatter_(1, first, ours + theirs)


class _Clusters:
    """The clusters of some images, each kept at the index of its lowest patch.

    Attributes:
        similarity: ``(B, L, L)``, symmetric; -inf on the diagonal and in columns of
            clusters that are gone.
        best: ``(B, L)``, largest value of each row; -inf for clusters that are gone.
        weight: ``(B, L)``. With it both linkages are one update: the similarities of a
            new cluster are the weighted sum of those of its two parts, divided by its
            own weight, which ``joint_weight`` computes.
        means: Where given, the distances between them are in ``similarity``; they are
            taken out before an update and put back in after it.
        owner: ``(B, L)``, the cluster of each patch.
    """

    def __init__(
        self,
        similarity: Tensor,
        joint_weight: Callable[[Tensor, Tensor, Tensor], Tensor],
        means: _MeanPlaces | None = None,
    ) -> None:
        batch, length = similarity.shape[:2]
        device = similarity.device
        similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        self.similarity = similarity
        self.rows = similarity.view(batch * length, length)
        self.best = similarity.amax(-1)
        self.weight = similarity.new_ones(batch, length)
        self.joint_weight = joint_weight
        self.means = means
        self.image = torch.arange(batch, device=device)
        self.first_row = self.image * length
        self.owner = torch.arange(length, device=device).repeat(batch, 1)
        # an accelerator looks at all rows sooner than it can say which need it
        self.scan_all = device.type != 'cpu'

    def most_similar(self) -> tuple[Tensor, Tensor]:
        """The pair to merge in each image, ``(B, 1)`` each, the lower index first."""
        least = self.best.amax(-1, keepdim=True) - TIE
        first = (self.best >= least).byte().argmax(-1, keepdim=True)
        second = (self._row(first) >= least).byte().argmax(-1, keepdim=True)
        return first, second

    def merge(self, first: Tensor, second: Tensor) -> None:
        """Make cluster ``second`` of each image part of ``first``."""
        ours, theirs = self._row(first), self._row(second)
        lost = torch.maximum(ours, theirs)
        merged = self._merged_row(first, second, ours, theirs)
        self.rows.index_copy_(0, self.first_row + first[:, 0], merged)
        self.similarity[self.image, :, first[:, 0]] = merged
        self.similarity[self.image, :, second[:, 0]] = -torch.inf
        self.best.scatter_(1, first, -torch.inf).scatter_(1, second, -torch.inf)
        self._update_best(lost, merged)
        self.best.scatter_(1, first, merged.amax(-1, keepdim=True))
        self.owner = torch.where(self.owner == second, first, self.owner)

    def ids(self) -> Tensor:
        """Clusters numbered in the order of their lowest patch, ``(B, L)``."""
        patches = torch.arange(self.owner.shape[1], device=self.owner.device)
        number = (self.owner == patches).cumsum(-1) - 1
        return number.gather(1, self.owner)

    def _row(self, index: Tensor) -> Tensor:
        return self.rows.index_select(0, self.first_row + index[:, 0])

    def _merged_row(
        self, first: Tensor, second: Tensor, ours: Tensor, theirs: Tensor
    ) -> Tensor:
        """Similarities ``(B, L)`` of the new cluster; updates weights and means."""
        if self.means is not None:
            ours = ours + self.means.distances(first)
            theirs = theirs + self.means.distances(second)
            self.means.merge(first, second)
        our_weight = self.weight.gather(1, first)
        their_weight = self.weight.gather(1, second)
        between = ours.gather(1, second)
        weight = self.joint_weight(our_weight, their_weight, between)
        self.weight.scatter_(1, first, weight)
        merged = ours * (our_weight / weight)
        merged.addcmul_(theirs, their_weight / weight)
        if self.means is not None:
            merged -= self.means.distances(first)
        return merged

    def _update_best(self, lost: Tensor, merged: Tensor) -> None:
        """Largest values after a merge; ``lost`` are the larger of both old rows."""
        if self.scan_all:
            highest = self.similarity.amax(-1)
            self.best = torch.where(self.best > -torch.inf, highest, self.best)
            return
        stale = (lost >= self.best) & (merged < self.best)
        self.best = torch.maximum(self.best, merged)
        rows = stale.view(-1).nonzero()[:, 0]
        self.best.view(-1)[rows] = self.rows.index_select(0, rows).amax(-1)
