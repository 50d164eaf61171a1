"""The schedule of evolved masks against published values."""

import pytest
import torch

from medic_mm.masking import evolved_alpha, evolved_num_clusters


def test_alpha_of_medic_and_of_epm():
    # (1/300)**0.2, (150/300)**0.2, (75/300)**0.5, worked out by hand
    assert evolved_alpha(0, 300) == pytest.approx(0.31958, abs=1e-5)
    assert evolved_alpha(149, 300) == pytest.approx(0.87055, abs=1e-5)
    assert evolved_alpha(74, 300, gamma=0.5) == pytest.approx(0.5)
    for gamma in (0.2, 0.5, 2):
        values = [evolved_alpha(e, 12, gamma) for e in range(12)]
        assert values == sorted(values)
        assert values[-1] == 1
    assert evolved_alpha(0, 10, gamma=0) == 1


def test_clusters_fall_from_first_to_last():
    for epochs in (2, 12, 31, 300):
        numbers = [evolved_num_clusters(e, epochs) for e in range(epochs)]
        assert numbers[0] == 40
        assert numbers[-1] == 10
        assert numbers == sorted(numbers, reverse=True)
    assert [evolved_num_clusters(e, 5, 9, 1) for e in range(5)] == [9, 7, 5, 3, 1]
    assert [evolved_num_clusters(e, 4, 9, 5) for e in range(4)] == [9, 7, 6, 5]
    assert evolved_num_clusters(0, 1) == 10, 'one epoch is the last one'
    assert [evolved_num_clusters(e, 3, 8, 8) for e in range(3)] == [8, 8, 8]


def test_clusters_are_within_one_of_the_released_formula():
    for epoch in range(300):
        released = int((40 - 10) * (300 - epoch) / 300 + 10)
        assert abs(evolved_num_clusters(epoch, 300) - released) <= 1


def test_spread_adds_up_to_two_from_the_generator():
    def draws(seed):
        generator = torch.Generator().manual_seed(seed)
        return [
            evolved_num_clusters(0, 9, spread=2, generator=generator) for _ in range(60)
        ]

    assert set(draws(0)) == {40, 41, 42}
    assert draws(0) == draws(0) != draws(1)
    before = torch.get_rng_state()
    evolved_num_clusters(0, 9)
    assert torch.equal(torch.get_rng_state(), before), 'no spread, but it drew'


@pytest.mark.parametrize('epoch', [-1, 12])
@pytest.mark.parametrize('schedule', [evolved_alpha, evolved_num_clusters])
def test_refuses_an_epoch_out_of_range(schedule, epoch):
    with pytest.raises(ValueError, match=rf'epoch={epoch} .* of 12 has 0\.\.11'):
        schedule(epoch, 12)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'first': 5}, 'first=5 and last=10: .* first >= last >= 1'),
        ({'last': 0}, 'first=40 and last=0: .* first >= last >= 1'),
        ({'spread': -1}, 'spread=-1 .* at least 0'),
    ],
)
def test_refuses_numbers_that_cannot_be(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        evolved_num_clusters(0, 12, **settings)


@pytest.mark.parametrize('gamma', [-0.1, float('nan')])
def test_refuses_a_negative_gamma(gamma):
    with pytest.raises(ValueError, match=f'gamma={gamma} .* at least 0'):
        evolved_alpha(0, 12, gamma)
