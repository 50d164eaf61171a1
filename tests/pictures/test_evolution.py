"""Clusters and masks over the epochs: values, colours and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from medic_mm.masking import cluster_hierarchical
from medic_mm.masking.coherence import follow_clusters
from medic_mm.pictures.evolution import (
    EvolutionSettings,
    Stage,
    draw_evolution,
    evolve,
    format_table,
    spread_epochs,
    table_of,
)
from medic_mm.pictures.masks import colour_clusters

GRID = (4, 5)
SETTINGS = EvolutionSettings(
    num_masked=8, epochs=10, at=(0, 4, 9), first=12, last=3, spatial_bias=2.0
)
METHODS = ['EM', 'HC', 'HC + bias']


@pytest.fixture(scope='module')
def attention() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 20, 20, generator=generator).mul(2).softmax(-1)


@pytest.fixture(scope='module')
def stages(attention: torch.Tensor) -> list[Stage]:
    return evolve(attention, GRID, SETTINGS)


def pieces(ids: np.ndarray) -> float:
    """Connected components per cluster, by flooding."""
    left, count = {(y, x) for y in range(4) for x in range(5)}, 0
    while left:
        count += 1
        todo = [left.pop()]
        while todo:
            y, x = todo.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and ids[near] == ids[y, x]:
                    left.remove(near)
                    todo.append(near)
    return count / len(np.unique(ids))


def test_stages_follow_the_schedule(
    attention: torch.Tensor, stages: list[Stage]
) -> None:
    assert [stage.method for stage in stages] == np.repeat(METHODS, 3).tolist()
    assert [stage.epoch for stage in stages[:3]] == [0, 4, 9]
    assert [stage.num_clusters for stage in stages[3:6]] == [12, 8, 3]
    alphas = [0.1**0.2, 0.5**0.2, 1.0]
    assert [stage.alpha for stage in stages[6:]] == pytest.approx(alphas)
    for stage, bias in ((stages[4], 0.0), (stages[7], 2.0)):
        ids = cluster_hierarchical(attention, 8, spatial_bias=bias, grid=GRID)
        assert torch.equal(stage.ids, ids)
    for stage in stages:
        assert stage.masks.sum(1).tolist() == [8, 8]


def test_masks_hide_the_clusters_that_are_shown(stages: list[Stage]) -> None:
    # at the last epoch alpha is 1: whole clusters, and one cut to meet the count
    for stage in stages[2::3]:
        for mask, ids in zip(stage.masks, stage.ids, strict=True):
            cut = [mask[ids == k].unique().numel() > 1 for k in ids.unique()]
            assert sum(cut) <= 1


def test_table_has_the_measures_of_the_clusters(stages: list[Stage]) -> None:
    rows = table_of(stages)
    for row, stage in zip(rows, stages, strict=True):
        maps = stage.ids.view(2, *GRID).numpy()
        counted = [pieces(ids) for ids in maps]
        assert row['images']['components'] == pytest.approx(counted, abs=1e-4)
        assert row['components'] == pytest.approx(np.mean(counted), abs=1e-4)
        borders = [
            ((m[1:] != m[:-1]).sum() + (m[:, 1:] != m[:, :-1]).sum()) / 31 for m in maps
        ]
        assert row['boundary'] == pytest.approx(np.mean(borders), abs=1e-4)
        largest = [np.bincount(m.ravel()).max() for m in maps]
        assert row['images']['largest'] == largest
    lines = format_table(rows, 20).splitlines()
    assert len(lines) == 10
    assert lines[0].split()[-1] == '20'
    first = lines[-3].split()
    assert first[:6] == ['HC', '+', 'bias', '0', '12', '0.63']
    assert float(first[6]) == pytest.approx(rows[6]['components'], abs=0.01)


def test_epochs_are_spread() -> None:
    assert spread_epochs(300) == (0, 25, 50, 100, 200, 299)
    assert spread_epochs(3) == (0, 1, 2)
    assert spread_epochs(1) == (0,)


def test_clusters_keep_their_numbers_where_they_overlap() -> None:
    before = torch.tensor([0, 0, 0, 1, 1, 2])
    after = torch.tensor([2, 2, 0, 0, 3, 1])
    followed = follow_clusters([before, after])
    assert torch.equal(followed[0], before)
    # 2 overlaps most with 0; 0 and 3 with 1, of which the lower comes first; 1 with 2
    assert followed[1].tolist() == [0, 0, 1, 1, 3, 2]
    torch.manual_seed(0)
    maps = [torch.randint(k, (30,)) for k in (3, 7, 12)]
    for old, new in zip(maps, follow_clusters(maps), strict=True):
        same = old[:, None] == old
        assert torch.equal(same, new[:, None] == new)


def test_colours_are_those_of_the_clusters() -> None:
    picture = torch.zeros(3, 8, 10)
    ids = torch.arange(20) % 7
    shown = colour_clusters(picture, ids, GRID)
    patches = shown.view(4, 2, 5, 2, 3)
    assert torch.equal(patches[:, 0, :, 0], patches[:, 1, :, 1])
    colours = patches[:, 0, :, 0].reshape(20, 3)
    for k in range(7):
        assert len(colours[ids == k].unique(dim=0)) == 1
    assert len(colours.unique(dim=0)) == 7
    lighter = colour_clusters(picture + 1, ids, GRID)
    assert ((lighter - shown) > 0.3).all()  # the image shimmers through


def test_figure_has_a_row_of_maps_and_one_of_masks_a_method(
    stages: list[Stage],
) -> None:
    picture = torch.rand(3, 8, 10) * 0.5
    figure = Figure()
    draw_evolution(figure, picture, stages, 1, GRID, SETTINGS)
    assert len(figure.axes) == 6 * 3
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles[1] == f'epoch 4\nK = 8, alpha = {0.5**0.2:.2f}'
    for place, stage in enumerate(stages):
        row, column = divmod(place, 3)
        maps = figure.axes[6 * row + column]
        below = figure.axes[6 * row + 3 + column]
        grey = (abs(below.images[0].get_array() - 0.55) < 1e-6).all(-1)
        assert grey[::2, ::2].ravel().tolist() == stage.masks[1].tolist()
        written = [text.get_text() for text in maps.texts]
        pieces, shares, largest = (v[1] for v in stage.measures.values())
        measures = f'{pieces:.2f}  |  {shares:.2f}  |  {largest:.0f}'
        assert measures in written
        borders = round(float(shares) * 31)
        assert len(maps.collections[0].get_segments()) == borders
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert [f'{name}\nclusters' in texts for name in METHODS] == [True] * 3
