"""Patch tokens as colours, by their principal components."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Share of the patches that is cut off at either end of a colour's scale.
_CUT = 0.01


@torch.no_grad()
def pca_colours(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Colour each patch by the three leading principal components of its token.

    The components are those of all patches of all images together, so equal colours
    mean similar tokens, across images too. Each component is scaled by itself from its
    1st to its 99th percentile, and what lies beyond is cut.

    A component has no sign of its own: here the coordinate with the largest magnitude
    is positive, so the same tokens give the same colours.

    Args:
        tokens: Patch tokens ``(N, L, D)``, row-major.
        grid: Rows and columns of patches; L = rows * columns.

    Returns:
        float32 ``(N, rows, columns, 3)`` in 0..1 on the CPU: red, green and blue are
        the first, second and third component. A component without spread is 0.5.

    Raises:
        ValueError: where ``grid`` does not fit ``tokens``.
    """
    rows, columns = grid
    if tokens.ndim != 3 or tokens.shape[1] != rows * columns:
        raise ValueError(
            f'grid={tuple(grid)} has {rows * columns} patches, but the tokens have the '
            f'shape {tuple(tokens.shape)}: it must be (N, {rows * columns}, D)'
        )
    scores = _leading_scores(tokens.detach().flatten(0, 1).double().cpu())
    low, high = scores.quantile(torch.tensor([_CUT, 1 - _CUT]).to(scores), dim=0)
    spread = high - low
    flat = spread <= 1e-9 * scores.abs().amax().clamp(min=1e-30)
    colours = ((scores - low) / spread.where(~flat, 1.0)).clamp(0, 1)
    colours = colours.masked_fill(flat, 0.5)
    return colours.float().view(len(tokens), rows, columns, 3)


@torch.no_grad()
def explained_share(tokens: Tensor) -> float:
    """Share of the variance of tokens ``(N, L, D)`` that the three components have.

    0 where nothing varies.
    """
    points = tokens.detach().flatten(0, 1).double().cpu()
    variances = torch.linalg.eigvalsh(_covariance(points))
    return float(variances[-3:].sum() / variances.sum().clamp(min=1e-30))


def _covariance(points: Tensor) -> Tensor:
    """Of the D channels, times the number of points."""
    centred = points - points.mean(0)
    return centred.T @ centred


def _leading_scores(points: Tensor) -> Tensor:
    """Coordinates ``(P, 3)`` of points ``(P, D)`` along their leading components."""
    # of the D x D covariance: D is hundreds, the patches may be many thousands
    _, vectors = torch.linalg.eigh(_covariance(points))
    axes = vectors[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = (points - points.mean(0)) @ (axes * largest.sign())
    missing = 3 - scores.shape[1]  # tokens of one or two channels
    return F.pad(scores, (0, missing)) if missing > 0 else scores
