"""FixedView: one look per image and view, and untouched ambient generators."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from medic_mm.datasets.transforms.fixed_view import FixedView
from medic_mm.datasets.transforms.masks import RandomMask

# the hosts' transforms draw from these global generators
# ruff: noqa: NPY002


def noise_from_all_generators(results: dict) -> dict:
    """Stands for transforms that draw from any of the three generators."""
    drawn = random.random() + np.random.randn() + torch.randn(()).item()
    results['noise'] = drawn
    return results


AUGMENTATIONS = (
    dict(type='mmpretrain.RandomResizedCrop', scale=16),
    dict(type='mmpretrain.RandomFlip', prob=0.5),
    dict(type='mmpretrain.ColorJitter', brightness=0.4, hue=0.1),
)


def make(**kwargs) -> FixedView:
    transforms = [*AUGMENTATIONS, noise_from_all_generators]
    return FixedView(transforms, **kwargs)


def sample(index: int, **more) -> dict:
    image = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return dict(img=image, sample_idx=index, **more)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def ambient() -> tuple:
    """What the three streams give next."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(3).tolist(),
    )


def test_a_view_looks_the_same_whatever_the_ambient_state() -> None:
    seen = []
    for seed in (1, 2):
        seed_all(seed)
        view = make(num_views=3)
        seen.append([view(sample(i, view=v)) for i in (4, 0, 2) for v in range(3)])
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first['img'], second['img'])
        assert first['noise'] == second['noise']


def test_views_images_and_seeds_differ() -> None:
    looks = [
        make(num_views=2, seed=seed)({**sample(7), 'sample_idx': index, 'view': view})
        for seed in (0, 1)
        for index in (0, 1)
        for view in (0, 1)
    ]
    assert len({look['noise'] for look in looks}) == 8
    assert len({look['img'].tobytes() for look in looks}) == 8


def test_one_view_leaves_the_ambient_streams_alone() -> None:
    for seed in range(3):
        seed_all(seed)
        random.gauss(0, 1)  # leaves a spare value in the state
        expected = ambient()
        seed_all(seed)
        random.gauss(0, 1)
        make()(sample(0))
        assert ambient() == expected


def test_several_views_cost_one_numpy_draw() -> None:
    view = make(num_views=5)
    chosen = []
    for seed in range(30):
        seed_all(seed)
        expected_view = np.random.randint(5)
        expected = ambient()
        seed_all(seed)
        results = view(sample(seed))
        assert results['view'] == expected_view
        assert ambient() == expected
        chosen.append(results['view'])
    assert set(chosen) == set(range(5))


def test_a_forced_view_draws_nothing() -> None:
    seed_all(0)
    expected = ambient()
    seed_all(0)
    assert make(num_views=5)(sample(0, view=3))['view'] == 3
    assert ambient() == expected


def test_masks_drawn_afterwards_vary() -> None:
    view, mask = make(), RandomMask(grid=8)
    results = [mask(view(sample(0))) for _ in range(20)]
    assert len({r['img'].tobytes() for r in results}) == 1
    assert len({r['mask'].tobytes() for r in results}) == 20


def test_a_view_in_a_view() -> None:
    inner = FixedView([noise_from_all_generators], seed=5)

    def keep(results: dict) -> dict:
        results['before'] = results.pop('noise')
        return results

    steps = [inner, keep, noise_from_all_generators]
    alone = FixedView([noise_from_all_generators])(sample(2))['noise']
    assert FixedView(steps)(sample(2))['noise'] == alone
    assert FixedView(steps)(sample(2))['before'] == inner(sample(2))['noise']


def test_an_error_inside_puts_the_state_back() -> None:
    def fail(results: dict) -> dict:
        random.random(), np.random.rand(), torch.rand(())
        raise OSError('torn image')

    seed_all(0)
    expected = ambient()
    seed_all(0)
    with pytest.raises(OSError, match='torn image'):
        FixedView([fail])(sample(0))
    assert ambient() == expected


def test_a_dropped_sample_stays_dropped() -> None:
    assert FixedView([lambda results: None])(sample(0)) is None


@pytest.mark.parametrize('bad', [dict(num_views=0), dict(seed=-1)])
def test_impossible_settings_are_refused(bad: dict) -> None:
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f'{name}={value}'):
        make(**bad)


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match='sample_idx'):
        make()({'img': sample(0)['img']})
    with pytest.raises(ValueError, match=r'must be within 0\.\.1'):
        make(num_views=2)(sample(0, view=2))
