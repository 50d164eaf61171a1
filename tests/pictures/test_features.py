"""Patch tokens as colours, against numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medic_mm.pictures.features import pca_colours


def reference(tokens: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The leading right singular vectors, scaled percentile by percentile."""
    points = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    points = points - points.mean(0)
    axes = np.linalg.svd(points, full_matrices=False)[2][:3]
    colours = np.empty((len(points), 3))
    for index, axis in enumerate(axes):
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        scores = points @ axis
        low, high = np.percentile(scores, [1, 99])
        colours[:, index] = np.clip((scores - low) / (high - low), 0, 1)
    return colours.reshape(len(tokens), rows, columns, 3)


def some_tokens(images: int = 4, patches: int = 15, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(3, 0.2, width)
    mixing = torch.randn(width, width, generator=generator)
    noise = torch.randn(images, patches, width, generator=generator)
    return (noise * scales) @ mixing + 5


def test_colours_equal_those_of_a_singular_value_decomposition() -> None:
    tokens = some_tokens()
    colours = pca_colours(tokens, (3, 5))
    expected = reference(tokens.numpy(), 3, 5)
    np.testing.assert_allclose(colours.numpy(), expected, atol=1e-5)
    assert colours.min() == 0
    assert colours.max() == 1


def test_components_are_of_all_images_together() -> None:
    tokens = some_tokens()
    together = pca_colours(tokens, (3, 5))
    again = pca_colours(tokens.flip(0), (3, 5)).flip(0)
    torch.testing.assert_close(together, again, atol=1e-5, rtol=0)
    alone = pca_colours(tokens[:1], (3, 5))
    assert (together[:1] - alone).abs().max() > 0.1


def test_one_far_patch_leaves_the_colours_of_the_others_their_range() -> None:
    tokens = torch.zeros(2, 200, 3)
    tokens[:, :, 0] = torch.linspace(0, 1, 400).view(2, 200)
    tokens[0, 0, 0] = 1000
    red = pca_colours(tokens, (10, 20))[..., 0].flatten()
    assert red[1:].max() - red[1:].min() > 0.98


def test_components_without_spread_are_grey() -> None:
    tokens = torch.zeros(1, 6, 5)
    tokens[0, :, 2] = torch.arange(6.0)
    colours = pca_colours(tokens, (2, 3))[0].view(6, 3)
    assert torch.equal(colours[:, 1:], torch.full((6, 2), 0.5))
    assert (colours[:, 0].diff() > 0).all()
    two_channels = pca_colours(torch.rand(1, 6, 2), (2, 3))
    assert torch.equal(two_channels[..., 2], torch.full((1, 2, 3), 0.5))


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r'grid=\(2, 3\) has 6 patches'):
        pca_colours(torch.rand(2, 7, 4), (2, 3))
