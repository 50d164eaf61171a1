"""Pieces and borders of clusters against scipy and against hand-made grids."""

import pytest
import torch
from scipy.ndimage import label

from medic_mm.masking import spatial_coherence


def literal(ids, rows, columns):
    canvas = ids.view(rows, columns).numpy()
    kinds = set(canvas.flatten().tolist())
    pieces = [label(canvas == kind)[1] for kind in kinds]
    borders = [
        canvas[r, c] != canvas[r + i, c + j]
        for r in range(rows)
        for c in range(columns)
        for i, j in ((0, 1), (1, 0))
        if r + i < rows and c + j < columns
    ]
    return sum(pieces) / len(kinds), sum(borders) / len(borders)


@pytest.mark.parametrize('grid', [(14, 14), (5, 8), (1, 9), (9, 1)])
@pytest.mark.parametrize('kinds', [1, 2, 3, 20])
def test_equals_scipys_components_and_a_count_of_borders(grid, kinds):
    generator = torch.Generator().manual_seed(kinds)
    ids = torch.randint(kinds, (6, grid[0] * grid[1]), generator=generator) * 7
    found = spatial_coherence(ids, grid)
    for one, components, boundary in zip(
        ids, found.components.tolist(), found.boundary.tolist(), strict=True
    ):
        pieces, borders = literal(one, *grid)
        assert components == pytest.approx(pieces)
        assert boundary == pytest.approx(borders)


def test_hand_made_grids():
    halves = [0, 0, 1, 1] * 4
    checkers = [0, 1, 0, 1, 1, 0, 1, 0] * 2
    spiral = [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    found = spatial_coherence(torch.tensor([halves, checkers, spiral]), (4, 4))
    assert found.components.tolist() == [1, 8, 1]
    assert found.boundary.tolist() == pytest.approx([4 / 24, 1, 9 / 24])


def test_a_single_patch():
    found = spatial_coherence(torch.zeros(2, 1, dtype=torch.long), (1, 1))
    assert found.components.tolist() == [1, 1]
    assert found.boundary.tolist() == [0, 0]


@pytest.mark.parametrize('shape', [(2, 11), (12,)])
def test_refuses_a_grid_that_does_not_fit(shape):
    with pytest.raises(ValueError, match=r'grid=\(3, 4\) has 12 patches, but the ids'):
        spatial_coherence(torch.zeros(shape, dtype=torch.long), (3, 4))
