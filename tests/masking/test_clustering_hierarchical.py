"""Hierarchical clustering against plain merge loops over one image."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from literal_clustering import merge_loop, numbered
from peak_memory import peak_bytes
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from medic_mm.masking import cluster_hierarchical, clustering_hierarchical

GRID = (4, 7)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_attention(batch, length, seed=0):
    return torch.randn(batch, length, length, generator=seeded(seed)).softmax(-1)


def structured_attention(grid=GRID, batch=2, seed=0):
    """Parts that look at themselves, at neighbours, and a little at random."""
    rows, columns = grid
    length = rows * columns
    place = torch.stack(
        [torch.arange(length) // columns, torch.arange(length) % columns], 1
    ).double()
    near = torch.cdist(place, place).neg()
    part = torch.randint(5, (batch, length), generator=seeded(seed))
    same = (part[:, :, None] == part[:, None]).double()
    noise = torch.randn(batch, length, length, generator=seeded(seed + 1))
    return (near + 2 * same + 0.3 * noise).softmax(-1)


def random_ties(seed, length=14):
    """Rows of (3, 4), (4, 3), (5, 0), ... : rational cosines, most of them equal."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((length, length), dtype=int)
    for row in rows:
        pair = [(3, 4), (4, 3), (5, 0), (1, 0), (6, 8), (5, 12)][generator.integers(6)]
        row[generator.choice(6, 2, replace=False)] = pair
    return rows


def exact_merge_loop(rows, num_clusters, linkage):
    """The merge loop in fractions: equal similarities are exactly equal."""
    lengths = [round(float(row @ row) ** 0.5) for row in rows]
    unit = [
        [Fraction(int(v), n) for v in row] for row, n in zip(rows, lengths, strict=True)
    ]

    def dot(x, y):
        return sum(a * b for a, b in zip(x, y, strict=True) if a and b)

    def total(members):
        return [sum(values) for values in zip(*(unit[i] for i in members), strict=True)]

    def similarity(a, b):
        product = dot(total(a), total(b))
        if linkage == 'average':
            return product / (len(a) * len(b))
        # squared: no root is needed, and nothing here is negative
        one, other = total(a), total(b)
        return product**2 / (dot(one, one) * dot(other, other))

    clusters = [[i] for i in range(len(rows))]
    while len(clusters) > num_clusters:
        pairs = list(combinations(range(len(clusters)), 2))
        values = [similarity(clusters[i], clusters[j]) for i, j in pairs]
        i, j = pairs[values.index(max(values))]
        clusters[i] = clusters[i] + clusters.pop(j)
    return numbered(clusters, len(rows))


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
@pytest.mark.parametrize('bias', [0.0, 0.3, 2.0])
@pytest.mark.parametrize('attention', [random_attention(2, 28), structured_attention()])
def test_equals_a_merge_loop(attention, linkage, bias):
    found = [merge_loop(i, linkage, bias, GRID) for i in attention.double().numpy()]
    for num_clusters in range(1, 29):
        ids = cluster_hierarchical(attention, num_clusters, linkage, bias, GRID)
        assert ids.dtype == torch.long
        assert ids.tolist() == [levels[num_clusters] for levels in found]


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
@pytest.mark.parametrize('seed', range(3))
def test_equal_similarities_merge_the_lowest_pair(linkage, seed):
    images = [random_ties(10 * seed + i) for i in range(2)]
    batch = torch.tensor(np.stack(images))
    for num_clusters in (1, 3, 9):
        ids = cluster_hierarchical(batch, num_clusters, linkage).tolist()
        for one, rows in zip(ids, images, strict=True):
            assert one == exact_merge_loop(rows, num_clusters, linkage)


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_ties_of_identical_and_of_unrelated_rows(linkage):
    # all alike: the first cluster swallows the next patch, again and again
    alike = torch.ones(1, 6, 6)
    assert cluster_hierarchical(alike, 3, linkage).tolist() == [[0, 0, 0, 0, 1, 2]]
    # nothing in common: the same, at similarity 0
    alone = torch.eye(6)[None]
    first = cluster_hierarchical(alone, 5, linkage).tolist()
    assert first == [[0, 0, 1, 2, 3, 4]]
    # pairs of equal rows before anything else, the lowest pair first
    pairs = torch.eye(3).repeat(2, 2)[None]
    assert cluster_hierarchical(pairs, 4, linkage).tolist() == [[0, 1, 2, 0, 1, 3]]


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_rounding_does_not_break_ties(linkage):
    """One direction at many lengths: cosines are 1 but for the last bits."""
    generator = seeded(0)
    direction = torch.rand(20, 1, 16, generator=generator, dtype=torch.float64)
    rows = torch.rand(20, 16, 1, generator=generator, dtype=torch.float64) * direction
    unit = torch.nn.functional.normalize(rows, dim=-1)
    assert len((unit @ unit.mT).unique()) > 1, 'nothing was rounded'
    ids = cluster_hierarchical(rows, 6, linkage)
    assert ids.tolist() == [[0] * 11 + [1, 2, 3, 4, 5]] * 20


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_a_bias_alone_joins_neighbours_in_order(linkage):
    """Every neighbour is at the same distance: ties of the position term."""
    alike = torch.ones(1, 12, 12)
    found = merge_loop(alike[0].numpy(), linkage, 1.0, (3, 4))
    for num_clusters in range(1, 13):
        ids = cluster_hierarchical(alike, num_clusters, linkage, 1.0, (3, 4))
        assert ids[0].tolist() == found[num_clusters]
    assert found[10] == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_average_linkage_equals_scipys():
    attention = random_attention(4, 49, seed=3)
    unit = torch.nn.functional.normalize(attention.double(), dim=-1)
    for ids, image in zip(
        cluster_hierarchical(attention, 9, 'average'), unit, strict=True
    ):
        distances = squareform((1 - image @ image.T).numpy(), checks=False)
        theirs = fcluster(linkage(distances, 'average'), 9, 'maxclust')
        same = theirs[:, None] == theirs[None]
        assert (ids[:, None] == ids[None]).tolist() == same.tolist()


def test_columns_are_the_rows_of_the_transpose():
    attention = random_attention(2, 28)
    columns = cluster_hierarchical(attention, 7, axis='columns')
    assert torch.equal(columns, cluster_hierarchical(attention.mT, 7))
    assert not torch.equal(columns, cluster_hierarchical(attention, 7))


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
@pytest.mark.parametrize('num_clusters', [1, 2, 13, 35, 36])
def test_finds_exactly_the_asked_number_numbered_by_first_patch(linkage, num_clusters):
    for ids in cluster_hierarchical(random_attention(5, 36), num_clusters, linkage):
        order = list(dict.fromkeys(ids.tolist()))
        assert order == list(range(num_clusters))


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
@pytest.mark.parametrize('bias', [0.0, 0.5])
def test_all_ways_to_run_it_agree(monkeypatch, linkage, bias):
    """In chunks, image by image, and as on an accelerator."""
    attention = structured_attention((6, 6), batch=5)
    once = cluster_hierarchical(attention, 8, linkage, bias)
    for i in range(5):
        alone = cluster_hierarchical(attention[i : i + 1], 8, linkage, bias)
        assert torch.equal(alone[0], once[i])

    class ScansAll(clustering_hierarchical._Clusters):
        def __init__(self, *args):
            super().__init__(*args)
            self.scan_all = True

    with monkeypatch.context() as patch:
        patch.setattr(clustering_hierarchical, '_Clusters', ScansAll)
        assert torch.equal(cluster_hierarchical(attention, 8, linkage, bias), once)
    monkeypatch.setattr(clustering_hierarchical, 'CHUNK_BYTES', 2 * 8 * 36**2)
    assert torch.equal(cluster_hierarchical(attention, 8, linkage, bias), once)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('linkage', ['centroid', 'average'])
@pytest.mark.parametrize('bias', [0.0, 0.5])
def test_cuda_agrees_with_the_cpu(linkage, bias):
    for attention in (structured_attention((6, 6)), torch.ones(2, 36, 36)):
        here = cluster_hierarchical(attention, 8, linkage, bias)
        there = cluster_hierarchical(attention.cuda(), 8, linkage, bias)
        assert there.is_cuda
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_rows_of_zeros_and_opposite_rows_are_clustered_too(linkage):
    rows = torch.eye(6)
    rows[2:4] = 0
    rows[5] = -rows[4]
    for num_clusters in range(1, 7):
        ids = cluster_hierarchical(rows[None], num_clusters, linkage)[0]
        assert sorted(set(ids.tolist())) == list(range(num_clusters))


def test_input_stays_as_it_is_and_takes_no_part_in_autograd():
    attention = random_attention(2, 16).requires_grad_()
    before = attention.detach().clone()
    ids = cluster_hierarchical(attention, 4, spatial_bias=0.5)
    assert not ids.requires_grad
    assert torch.equal(attention, before)


@pytest.mark.parametrize('settings', [{}, {'spatial_bias': 0.5}])
@pytest.mark.parametrize('linkage', ['centroid', 'average'])
def test_memory_is_linear_in_the_batch(linkage, settings):
    few, many = (
        peak_bytes(
            cluster_hierarchical, random_attention(b, 49), 40, linkage, **settings
        )
        for b in (4, 16)
    )
    assert many < 4.1 * few
    assert few < 8 * 4 * 49**2 * 8, 'more than eight float64 matrices an image'


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'num_clusters': 0}, r'num_clusters=0 is out of range for 12 .*1\.\.12'),
        ({'num_clusters': 13}, r'num_clusters=13 is out of range for 12 .*1\.\.12'),
        ({'linkage': 'ward'}, "linkage='ward' .* 'centroid' or 'average'"),
        ({'spatial_bias': -1.0}, r'spatial_bias=-1\.0 .* at least 0'),
        ({'spatial_bias': float('nan')}, 'spatial_bias=nan .* at least 0'),
        ({'spatial_bias': 1.0}, r'grid=None \(a square\) does not fit .* 12 patches'),
        ({'grid': (3, 5)}, r'grid=\(3, 5\) does not fit attention between 12'),
        ({'axis': 'both'}, "axis='both' .* 'rows' or 'columns'"),
    ],
)
def test_refuses_settings_that_cannot_work(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        cluster_hierarchical(random_attention(1, 12), **{'num_clusters': 4, **settings})


@pytest.mark.parametrize('attention', [torch.ones(4, 4), torch.ones(1, 4, 5)])
def test_refuses_attention_of_another_shape(attention):
    with pytest.raises(ValueError, match=r'must be \(B, L, L\)'):
        cluster_hierarchical(attention, 2)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_refuses_attention_that_is_not_finite(value):
    attention = random_attention(2, 9)
    attention[1, 3, 4] = value
    with pytest.raises(ValueError, match='attention has NaN or infinite values'):
        cluster_hierarchical(attention, 2)
