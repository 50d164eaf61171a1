"""Class-token attention, drawn in its place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from medic_mm.models.vit.attention import ClassAttention
from medic_mm.pictures.attention import draw_attention, draw_overview


def maps(owner: str, heads: int, images: int = 2, **settings) -> ClassAttention:
    generator = torch.Generator().manual_seed(heads)
    weights = torch.rand(images, heads, 4, 4, generator=generator) / 16
    return ClassAttention(weights, owner, 12, **settings)


def drawn(figure: Figure) -> dict[str, np.ndarray]:
    """Titles of all axes, and the topmost picture below each."""
    axes = [axis for axis in figure.axes if axis.get_title() and axis.images]
    return {axis.get_title(): np.asarray(axis.images[-1].get_array()) for axis in axes}


@pytest.mark.parametrize('overlay', [False, True])
def test_each_map_is_drawn_under_its_name_with_its_maximum(overlay):
    sides = [maps('student', 7), maps('teacher', 1, mean_of=16)]
    picture = torch.rand(3, 32, 32)
    figure = Figure()
    draw_attention(figure, picture, sides, 1, overlay=overlay)
    shown = drawn(figure)
    np.testing.assert_allclose(shown.pop('input'), picture.permute(1, 2, 0))
    expected = {
        **{f'student, head {m + 1} of 7': sides[0].weights[1, m] for m in range(7)},
        'teacher, mean of 16 heads': sides[1].weights[1, 0],
    }
    assert list(shown) == list(expected)
    for name, weights in expected.items():
        np.testing.assert_allclose(shown[name], weights)
        axis = next(a for a in figure.axes if a.get_title() == name)
        assert axis.images[-1].get_clim() == (0, float(weights.max()))
        assert axis.texts[0].get_text() == f'max. {float(weights.max()):.2g}'
        # the map covers the image, whatever their sizes
        assert list(axis.images[-1].get_extent()) == [-0.5, 31.5, 31.5, -0.5]
    assert 'equal attention to all tokens would be 0.059' in figure.get_suptitle()


@pytest.mark.parametrize(('heads', 'lines'), [(4, 1), (16, 2)])
def test_overview_has_all_maps_of_all_images(heads, lines):
    sides = [maps('student', 3), maps('teacher', heads)]
    pictures = torch.rand(2, 3, 32, 32)
    figure = Figure()
    draw_overview(figure, pictures, sides)
    found = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    expected = []
    for image in range(2):
        expected.append(pictures[image].permute(1, 2, 0))
        expected += [*sides[0].weights[image], *sides[1].weights[image]]
    assert len(found) == len(expected) == 2 * (1 + 3 + heads)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, wanted)
    rows = {axis.get_subplotspec().rowspan.start for axis in figure.axes if axis.images}
    assert len(rows) == 2 * lines
    # nothing of the maps is changed by drawing them
    again = copy.deepcopy(sides)
    draw_attention(Figure(), pictures[0], sides, 0, interpolation='bilinear')
    assert torch.equal(again[0].weights, sides[0].weights)
