"""Evolved masks: exact counts, and what alpha, noise and parts do to them."""

import pytest
import torch
from peak_memory import peak_bytes

from medic_mm.masking import cluster_em, cluster_hierarchical, evolved_mask

METHODS = ['em', 'hierarchical']


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_attention(batch, length, seed=0):
    noise = torch.randn(batch, length, length, generator=seeded(seed))
    return (2 * noise).softmax(-1)


def corners(rows, columns):
    return torch.tensor(
        [r % 2 * 2 + c % 2 for r in range(rows) for c in range(columns)]
    )


def literal_mask(ids, grid, num_masked, alpha, num_clusters, noise, generator):
    """The mix of noise and part scores, one patch at a time."""
    batch, length = ids.shape
    scattered = torch.rand(batch, length, generator=generator)
    if noise == 'grid':
        cells = torch.rand(batch, 4, generator=generator)
    parts = torch.rand(batch, num_clusters, generator=generator)
    ties = torch.rand(batch, length, generator=generator)
    masks = []
    for image in range(batch):
        keys = []
        for patch in range(length):
            row, column = divmod(patch, grid[1])
            value = scattered[image, patch]
            if noise == 'grid':
                value = cells[image, row % 2 * 2 + column % 2]
            score = (1 - alpha) * value + alpha * parts[image, ids[image, patch]]
            keys.append((-float(score), float(ties[image, patch]), patch))
        hidden = {patch for _, _, patch in sorted(keys)[:num_masked]}
        masks.append([patch in hidden for patch in range(length)])
    return masks


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('noise', ['grid', 'random'])
@pytest.mark.parametrize('alpha', [0.0, 0.3, 0.7, 1.0])
def test_hides_exactly_the_asked_number(method, noise, alpha):
    grid = (6, 5)
    attention = random_attention(3, 30)
    for num_clusters in (1, 2, 7, 29, 30):
        for count in (0, 1, 12, 22, 29, 30):
            mask = evolved_mask(
                attention, grid, count, alpha, num_clusters, method, noise=noise
            )
            assert mask.dtype == torch.bool
            assert mask.shape == (3, 30)
            assert mask.sum(1).tolist() == [count] * 3


@pytest.mark.parametrize('noise', ['grid', 'random'])
@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
@pytest.mark.parametrize(('num_masked', 'num_clusters'), [(12, 6), (22, 3)])
def test_follows_the_scores(noise, alpha, num_masked, num_clusters):
    grid, attention = (6, 5), random_attention(4, 30)
    settings = dict(method='hierarchical', noise=noise, spatial_bias=0.5)
    mask = evolved_mask(
        attention,
        grid,
        num_masked,
        alpha,
        num_clusters,
        generator=seeded(3),
        **settings,
    )
    ids = cluster_hierarchical(attention, num_clusters, spatial_bias=0.5, grid=grid)
    assert mask.tolist() == literal_mask(
        ids, grid, num_masked, alpha, num_clusters, noise, seeded(3)
    )


def test_em_draws_its_start_first():
    grid, attention = (6, 5), random_attention(4, 30)
    mask = evolved_mask(attention, grid, 12, 0.8, 5, 'em', seeded(3))
    generator = seeded(3)
    ids = cluster_em(attention, 5, generator=generator)
    assert mask.tolist() == literal_mask(ids, grid, 12, 0.8, 5, 'grid', generator)


@pytest.mark.parametrize('method', METHODS)
def test_alpha_one_hides_whole_parts_but_one(method):
    attention = random_attention(8, 36)
    mask = evolved_mask(attention, (6, 6), 20, 1.0, 6, method, seeded(1))
    ids = (
        cluster_em(attention, 6, generator=seeded(1))
        if method == 'em'
        else cluster_hierarchical(attention, 6)
    )
    for hidden, parts in zip(mask, ids, strict=True):
        shares = [hidden[parts == k].float().mean().item() for k in parts.unique()]
        assert sum(0 < share < 1 for share in shares) <= 1


def test_alpha_zero_with_grid_noise_hides_corners():
    attention = random_attention(16, 64)
    mask = evolved_mask(attention, (8, 8), 48, 0.0, 5, generator=seeded(0))
    corner = corners(8, 8)
    shown = [set(corner[~row].tolist()) for row in mask]
    assert all(len(kinds) == 1 for kinds in shown)
    assert len(set.union(*shown)) > 1, 'all images show the same corner'


def test_ties_are_cut_anywhere_in_a_part():
    """With one part and alpha 1, all scores are equal: every patch is hidden alike."""
    mask = evolved_mask(torch.ones(2000, 4, 4), (2, 2), 1, 1.0, 1, generator=seeded(0))
    share = mask.float().mean(0)
    # standard error of a share of 0.25 over 2,000 draws is 0.0097
    assert (share - 0.25).abs().max() < 5 * 0.0097


@pytest.mark.parametrize('method', METHODS)
def test_comes_back_from_the_same_seed_and_varies_otherwise(method):
    attention = random_attention(6, 36)
    one, two, other = (
        evolved_mask(attention, (6, 6), 20, 0.7, 6, method, seeded(s))
        for s in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(3)
    assert torch.equal(evolved_mask(attention, (6, 6), 20, 0.7, 6, method), one)


def test_settings_reach_the_clustering():
    attention = random_attention(4, 36)

    def mask(method, **settings):
        return evolved_mask(
            attention, (6, 6), 20, 1.0, 6, method, seeded(0), **settings
        )

    for settings in (
        {'spatial_bias': 3.0},
        {'linkage': 'average'},
        {'axis': 'columns'},
    ):
        assert not torch.equal(
            mask('hierarchical', **settings), mask('hierarchical')
        ), settings
    for settings in ({'kappa': 5.0}, {'iterations': 1}, {'axis': 'columns'}):
        assert not torch.equal(mask('em', **settings), mask('em')), settings


@pytest.mark.parametrize('method', METHODS)
def test_takes_no_part_in_autograd_and_works_under_autocast(method):
    attention = random_attention(2, 36)
    plain = evolved_mask(attention, (6, 6), 20, 0.7, 6, method, seeded(0))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mask = evolved_mask(
            attention.requires_grad_(), (6, 6), 20, 0.7, 6, method, seeded(0)
        )
    assert not mask.requires_grad
    assert torch.equal(mask, plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('method', METHODS)
def test_cuda_agrees_with_the_cpu(method):
    attention = random_attention(3, 36).double()
    here = evolved_mask(attention, (6, 6), 20, 0.7, 6, method, seeded(0))
    there = evolved_mask(attention.cuda(), (6, 6), 20, 0.7, 6, method, seeded(0))
    assert there.is_cuda
    assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize('method', METHODS)
def test_memory_is_linear_in_the_batch(method):
    few, many = (
        peak_bytes(evolved_mask, random_attention(b, 49), (7, 7), 30, 0.5, 30, method)
        for b in (4, 16)
    )
    assert many < 4.1 * few


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'grid': (3, 5)}, r'grid=\(3, 5\) has 15 patches but .* between 12'),
        ({'num_masked': -1}, r'num_masked=-1 .* 3x4 patches: it must lie in 0\.\.12'),
        ({'num_masked': 13}, r'num_masked=13 .* 3x4 patches: it must lie in 0\.\.12'),
        ({'alpha': 1.01}, r'alpha=1\.01 .* at most 1'),
        ({'alpha': float('nan')}, r'alpha=nan .* at most 1'),
        ({'num_clusters': 13}, r'num_clusters=13 is out of range for 12 patches'),
        ({'method': 'kmeans'}, "method='kmeans' .* 'em' or 'hierarchical'"),
        ({'noise': 'block'}, "noise='block' .* 'grid' or 'random'"),
        (
            {'method': 'em', 'spatial_bias': 0.5},
            "spatial_bias=0.5 is not a setting of method='em', which has axis",
        ),
        (
            {'kappa': 40},
            "kappa=40 is not a setting of method='hierarchical', which has axis",
        ),
    ],
)
def test_refuses_settings_that_cannot_work(settings, sentence):
    defaults = dict(grid=(3, 4), num_masked=6, alpha=0.5, num_clusters=3)
    with pytest.raises(ValueError, match=sentence):
        evolved_mask(random_attention(1, 12), **{**defaults, **settings})
