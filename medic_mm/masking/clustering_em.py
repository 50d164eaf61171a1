"""Spherical EM on attention: the parts of evolved part masking."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError

AXES = ('rows', 'columns')


@torch.no_grad()
def cluster_em(
    attention: Tensor,
    num_clusters: int,
    kappa: float = 40.0,
    iterations: int = 15,
    axis: str = 'rows',
    generator: Generator | None = None,
    unit_length: bool = True,
) -> Tensor:
    """Cluster patches by soft k-means on the unit sphere.

    One iteration: a patch's responsibilities are the softmax over clusters of ``kappa``
    times the product with each centre; a centre is the unit mean of the descriptors,
    weighted by its responsibilities. After the last one, a patch goes to the cluster
    with the highest responsibility divided by that cluster's total; a tie to the
    lowest index.

    From the released code of Evolved Part Masking (CVPR 2023) and MEDiC: kappa 40, 15
    iterations, random normal unit centres that all images of a batch share, the final
    division. Chosen here: descriptors have unit length, and products are cosines. The
    released MEDiC code leaves them as they are (``unit_length=False``), so that there
    kappa counts for less the more attention is spread, and the clusters are others.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks. float64 is computed in
            float64, all else in float32, under autocast too.
        num_clusters: K, at most; 1 to L. Clusters may stay empty.
        kappa: Sharpness, above 0.
        iterations: Number of updates of the centres, at least 1.
        axis: ``'rows'`` (what a patch looks at, MEDiC) or ``'columns'`` (who looks at
            it, EPM).
        generator: Draws the first centres, on its own device. Default: the global
            generator of the attention's device.
        unit_length: Divide descriptors by their lengths; False as in released MEDiC.

    Returns:
        long ``(B, L)``, ids within 0..K-1, not all of them used.

    Raises:
        UserError: for a setting out of range, or attention of another shape or, on a
            CPU, with values that are not finite (on an accelerator they count as 0).
    """
    require_number('cluster_em', 'kappa', kappa, above=0)
    require_number('cluster_em', 'iterations', iterations, low=1, integer=True)
    dtype = torch.float64 if attention.dtype == torch.float64 else torch.float32
    patches = patch_descriptors(attention, num_clusters, axis, dtype, unit_length)
    # drawn in float32 whatever the dtype, so that a seed means one start
    device = generator.device if generator is not None else patches.device
    shape = (num_clusters, patches.shape[-1])
    start = torch.randn(shape, generator=generator, device=device)
    start = F.normalize(start.to(patches), dim=-1)
    with torch.autocast(attention.device.type, enabled=False):
        centres = start.expand(len(patches), -1, -1)  # (B, K, D)
        for _ in range(iterations):
            share = _responsibilities(patches, centres, kappa)
            centres = F.normalize(share.mT @ patches, dim=-1)
        return _responsibilities(patches, centres, kappa).argmax(-1)


def _responsibilities(patches: Tensor, centres: Tensor, kappa: float) -> Tensor:
    """``(B, L, K)``, each cluster's column divided by its sum."""
    share = (patches @ centres.mT).mul_(kappa).softmax(-1)
    return share.div_(share.sum(1, keepdim=True).add_(1e-6))


def patch_descriptors(
    attention: Tensor,
    num_clusters: int,
    axis: str,
    dtype: torch.dtype,
    unit_length: bool = True,
) -> Tensor:
    """Check the input of a clustering and take one vector per patch, ``(B, L, L)``.

    Values that are not finite are refused on a CPU; on an accelerator they count as 0,
    since a training step does not wait to have them checked. With ``unit_length`` an
    all-zero vector stays zero.
    """
    if attention.ndim != 3 or attention.shape[1] != attention.shape[2]:
        raise UserError(
            f'attention has the shape {tuple(attention.shape)}: it must be (B, L, L), '
            'one row and one column per patch, without the class token'
        )
    length = attention.shape[1]
    require_number('the clustering', 'num_clusters', num_clusters, integer=True)
    if not 1 <= num_clusters <= length:
        raise UserError(
            f'num_clusters={num_clusters} is out of range for {length} patches: it '
            f'must lie in 1..{length}'
        )
    if axis not in AXES:
        raise UserError(f"axis={axis!r} is unknown: use 'rows' or 'columns'")
    if attention.device.type != 'cpu':
        attention = attention.nan_to_num(0.0, 0.0, 0.0)
    elif not attention.isfinite().all():
        raise UserError(
            'attention has NaN or infinite values, which cannot be clustered: give the '
            'softmaxed attention of a network whose weights are finite'
        )
    values = (attention if axis == 'rows' else attention.mT).to(dtype)
    return F.normalize(values, dim=-1) if unit_length else values
