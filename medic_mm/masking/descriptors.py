"""What the clusterings compare: one vector per patch, read from attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.checks import require_number
from medic_mm.errors import UserError

AXES = ('rows', 'columns')


def patch_descriptors(
    attention: Tensor,
    num_clusters: int,
    axis: str,
    dtype: torch.dtype,
    unit_length: bool = True,
) -> Tensor:
    """Check the input of a clustering and take descriptors from it.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks.
        num_clusters: Clusters asked for; checked only.
        axis: ``'rows'``: what a patch looks at (released MEDiC code). ``'columns'``:
            who looks at it (released EPM code).
        dtype: Of the result.
        unit_length: Divide each by its length; an all-zero one stays zero.

    Returns:
        ``(B, L, L)``, one vector per patch.

    Raises:
        UserError: for another shape, ``num_clusters`` not within 1..L, an unknown
            ``axis``, or values on a CPU that are not finite. On an accelerator such
            values count as 0: a training step does not wait to have them looked at.
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
