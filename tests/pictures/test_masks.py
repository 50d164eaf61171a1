"""Masks of every strategy, and how they are drawn."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from matplotlib.figure import Figure

from medic_mm.masking import cluster_hierarchical
from medic_mm.pictures.common import HIDDEN_GREY, wrap_caption
from medic_mm.pictures.masks import (
    MaskSettings,
    draw_all_masks,
    draw_masks,
    grey_out,
)

GRID = (4, 6)
SETTINGS = MaskSettings(num_masked=10, clusters=5, min_area=4)
NAMES = ['random', 'block', 'grid', 'evolved: EM', 'evolved: HC', 'evolved: HC + bias']


@pytest.fixture
def attention() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 24, 24, generator=generator).mul(2).softmax(-1)


def test_every_strategy_hides_the_asked_number(attention: torch.Tensor) -> None:
    masks = draw_all_masks(GRID, 3, SETTINGS, attention)
    assert list(masks) == NAMES
    for mask in masks.values():
        assert mask.sum(1).tolist() == [10, 10, 10]
    assert list(draw_all_masks(GRID, 3, SETTINGS)) == NAMES[:3]


def test_the_seed_decides(attention: torch.Tensor) -> None:
    masks, again = (draw_all_masks(GRID, 3, SETTINGS, attention) for _ in range(2))
    other = draw_all_masks(GRID, 3, dataclasses.replace(SETTINGS, seed=1), attention)
    for name in NAMES:
        assert torch.equal(masks[name], again[name])
        assert not torch.equal(masks[name], other[name])
    # a grid of few patches hides some of those of a random mask of the same noise
    assert not torch.equal(masks['random'], masks['grid'])


@pytest.mark.parametrize(('name', 'bias'), [(NAMES[4], 0.0), (NAMES[5], 3.0)])
def test_evolved_masks_hide_the_named_clusters(
    attention: torch.Tensor, name: str, bias: float
) -> None:
    settings = dataclasses.replace(SETTINGS, spatial_bias=3.0)
    masks = draw_all_masks(GRID, 3, settings, attention)[name]
    ids = cluster_hierarchical(attention, 5, spatial_bias=bias, grid=GRID)
    for mask, clusters in zip(masks, ids, strict=True):
        cut = [mask[clusters == k].unique().numel() for k in range(5)]
        assert sum(count > 1 for count in cut) <= 1  # the last one meets the count


def test_hidden_patches_are_grey() -> None:
    picture = torch.rand(3, 8, 12)
    mask = torch.tensor([True, False, False, False, False, True])
    hidden = grey_out(picture, mask, (2, 3))
    expected = picture.clone()
    expected[:, :4, :4] = HIDDEN_GREY
    expected[:, 4:, 8:] = HIDDEN_GREY
    assert torch.equal(hidden, expected.permute(1, 2, 0))


def test_figure_shows_each_mask_on_each_image(attention: torch.Tensor) -> None:
    pictures = torch.rand(3, 3, 16, 24) * 0.5  # nowhere the grey of hidden patches
    masks = draw_all_masks(GRID, 3, SETTINGS, attention)
    figure = Figure()
    draw_masks(figure, pictures, masks, GRID, SETTINGS)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert len(shown) == 3 * 7
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ['input', *NAMES]
    for row in range(3):
        assert (shown[7 * row] == pictures[row].permute(1, 2, 0).numpy()).all()
        for column, mask in enumerate(masks.values(), start=1):
            grey = (abs(shown[7 * row + column] - HIDDEN_GREY) < 1e-6).all(-1)
            patches = grey.reshape(4, 4, 6, 4).all((1, 3))
            assert patches.ravel().tolist() == mask[row].tolist()
            assert grey.sum() == 10 * 16
    [caption] = [text.get_text() for text in figure.texts]
    assert '10 of 4 x 6' in caption
    assert 'ratio of 0.42' in caption
    assert 'K = 5, alpha = 1' in caption.replace('\n', ' ')


def test_captions_are_broken_to_fit() -> None:
    caption = 'one two three four five six seven eight nine ten\neleven'
    assert wrap_caption(caption, 20.0) == caption.splitlines()
    narrow = wrap_caption(caption, 2.0)
    assert len(narrow) > 2
    assert ' '.join(narrow).split() == caption.split()
    assert max(map(len, narrow)) <= 24
