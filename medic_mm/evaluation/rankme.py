"""RankMe: how many dimensions a set of features really uses."""

from __future__ import annotations

import torch
from torch import Tensor

from medic_mm.errors import UserError

_CHUNK = 8192


def rankme(features: Tensor, eps: float = 1e-7) -> float:
    """Effective rank of a feature matrix (Garrido et al., arXiv 2210.02885, eq. 1).

    The exponential of the entropy of the singular values, which are first divided by
    their sum: 1 when all features lie on one line (collapse), ``min(N, D)`` when all
    directions are used alike. Features are not centred, as in the paper.

    Args:
        features: ``(N, D)``.
        eps: Added to each share, as in the paper.

    Returns:
        A number from 1 to ``min(N, D)`` (a little outside because of ``eps``); 0.0 for
        features that are all zero.

    Raises:
        UserError: for an empty matrix, or one with NaN or infinity.
    """
    if features.ndim != 2 or features.numel() == 0:
        raise UserError(
            f'features has shape {tuple(features.shape)} but must be (N, D), not empty'
        )
    if len(features) < features.shape[1]:
        features = features.T
    width = features.shape[1]
    # singular values from the small Gram matrix, in chunks and float64
    gram = torch.zeros(width, width, dtype=torch.float64)
    for start in range(0, len(features), _CHUNK):
        part = features[start : start + _CHUNK].to('cpu', torch.float64)
        gram.addmm_(part.T, part)
    if not torch.isfinite(gram).all():
        raise UserError('features has NaN or infinite values: the network diverged')
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular / total + eps
    return float((-(share * share.log()).sum()).exp())
