"""Spherical EM against plain loops over one image."""

import pytest
import torch
from literal_clustering import em_loop
from peak_memory import peak_bytes

from medic_mm.masking import cluster_em


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_attention(batch, length, seed=0, sharpness=2.0):
    noise = torch.randn(batch, length, length, generator=seeded(seed))
    return (sharpness * noise).softmax(-1)


def parts_attention(parts, length=24, leak=1e-3):
    """Patches of a part look at their part alone, but for a leak."""
    part = torch.arange(length) % parts
    same = (part[:, None] == part[None]).double()
    return (same + leak)[None], part


@pytest.mark.parametrize('axis', ['rows', 'columns'])
@pytest.mark.parametrize(
    ('num_clusters', 'kappa', 'iterations'), [(1, 40, 2), (5, 40, 15), (9, 8.5, 3)]
)
@pytest.mark.parametrize('structured', [False, True])
def test_equals_a_loop(num_clusters, kappa, iterations, axis, structured):
    attention = random_attention(3, 24).double()
    if structured:
        attention = attention + parts_attention(4)[0] * 0.2
    ids = cluster_em(attention, num_clusters, kappa, iterations, axis, seeded(5))
    assert ids.dtype == torch.long
    start = torch.randn(num_clusters, 24, generator=seeded(5))
    start = (start.double() / start.double().norm(dim=1, keepdim=True)).numpy()
    for one, image in zip(ids.tolist(), attention, strict=True):
        image = image if axis == 'rows' else image.T
        assert one == em_loop(image.numpy(), start, kappa, iterations)


@pytest.mark.parametrize('num_clusters', [5, 12])
def test_descriptors_as_the_released_code_leaves_them(num_clusters):
    attention = random_attention(3, 24, sharpness=3.0).double()

    def cluster(**settings):
        return cluster_em(attention, num_clusters, generator=seeded(5), **settings)

    start = torch.randn(num_clusters, 24, generator=seeded(5)).double()
    start = (start / start.norm(dim=1, keepdim=True)).numpy()
    raw = cluster(unit_length=False)
    for one, image in zip(raw.tolist(), attention, strict=True):
        assert one == em_loop(image.numpy(), start, 40.0, 15, unit_length=False)
    assert not torch.equal(raw, cluster()), 'the option changes nothing here'
    # rows that already have unit length give the same by both
    unit = torch.nn.functional.normalize(attention, dim=-1)
    one, two = (
        cluster_em(unit, num_clusters, generator=seeded(5), unit_length=flag)
        for flag in (True, False)
    )
    assert torch.equal(one, two)


def test_patches_that_are_alike_share_a_cluster():
    attention, part = parts_attention(4)
    for seed in range(5):
        ids = cluster_em(attention, 12, generator=seeded(seed))[0]
        for number in range(4):
            assert len(set(ids[part == number].tolist())) == 1
        assert set(ids.tolist()) <= set(range(12))


def test_ids_are_in_range_and_at_most_k_are_used():
    ids = cluster_em(random_attention(6, 36), 10, generator=seeded(0))
    assert int(ids.min()) >= 0
    assert int(ids.max()) <= 9
    one = cluster_em(random_attention(6, 36), 1, generator=seeded(0))
    assert not one.any()


def test_the_generator_makes_the_start_and_nothing_else_draws():
    attention = random_attention(4, 36)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two, other = (cluster_em(attention, 8, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected), 'the global generator moved'
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(1)
    assert torch.equal(cluster_em(attention, 8), one), 'the global one is the default'


def test_an_image_does_not_depend_on_its_batch():
    attention = random_attention(5, 36).double()
    batch = cluster_em(attention, 8, generator=seeded(0))
    for i in range(5):
        alone = cluster_em(attention[i : i + 1], 8, generator=seeded(0))
        assert torch.equal(alone[0], batch[i])


def test_autocast_does_not_reach_it():
    attention = random_attention(4, 49, sharpness=0.5)
    plain = cluster_em(attention, 12, generator=seeded(0))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(cluster_em(attention, 12, generator=seeded(0)), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_agrees_with_the_cpu():
    attention = random_attention(4, 49).double()
    here = cluster_em(attention, 12, generator=seeded(0))
    there = cluster_em(attention.cuda(), 12, generator=seeded(0))
    assert there.is_cuda
    assert torch.equal(there.cpu(), here)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_on_cuda_values_that_are_not_finite_count_as_zero(value):
    """The device is not asked; the CPU refuses them."""
    attention = random_attention(2, 36).double()
    zeroed = attention.clone()
    attention[0, 3], zeroed[0, 3] = value, 0.0
    there = cluster_em(attention.cuda(), 12, generator=seeded(0))
    assert torch.equal(there.cpu(), cluster_em(zeroed, 12, generator=seeded(0)))


def test_takes_no_part_in_autograd():
    attention = random_attention(2, 16).requires_grad_()
    assert not cluster_em(attention, 4, generator=seeded(0)).requires_grad


def test_memory_is_linear_in_the_batch():
    few, many = (
        peak_bytes(cluster_em, random_attention(b, 49), 10, generator=seeded(0))
        for b in (4, 16)
    )
    assert many < 4.1 * few
    assert few < 4 * 4 * 49**2 * 4, 'more than four float32 matrices an image'


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'num_clusters': 0}, r'num_clusters=0 is out of range for 12 .*1\.\.12'),
        ({'num_clusters': 13}, r'num_clusters=13 is out of range for 12 .*1\.\.12'),
        ({'kappa': 0}, 'kappa=0 .* a number above 0'),
        ({'kappa': float('nan')}, 'kappa=nan .* a number above 0'),
        ({'iterations': 0}, 'iterations=0 .* at least 1'),
        ({'axis': 'both'}, "axis='both' .* 'rows' or 'columns'"),
    ],
)
def test_refuses_settings_that_cannot_work(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        cluster_em(random_attention(1, 12), **{'num_clusters': 4, **settings})


def test_refuses_attention_that_cannot_be_clustered():
    with pytest.raises(ValueError, match=r'must be \(B, L, L\)'):
        cluster_em(torch.ones(1, 4, 5), 2)
    with pytest.raises(ValueError, match='attention has NaN or infinite values'):
        cluster_em(torch.full((1, 4, 4), float('nan')), 2)
