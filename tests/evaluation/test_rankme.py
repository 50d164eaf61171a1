"""RankMe on matrices whose singular values are known."""

from __future__ import annotations

import math

import pytest
import torch

from medic_mm.evaluation import rankme


def with_singular_values(values: list[float], rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator))[0]
    right = torch.linalg.qr(torch.randn(len(values), len(values)))[0]
    return left @ torch.diag(torch.tensor(values)) @ right


@pytest.mark.parametrize('values', [[1.0] * 6, [3.0, 2.0, 1.0], [5.0, 1e-3, 1e-3]])
def test_is_exponential_of_entropy(values: list[float]) -> None:
    shares = [value / sum(values) for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    features = with_singular_values(values, rows=40)
    assert rankme(features) == pytest.approx(expected, rel=1e-4)
    assert rankme(features.T) == pytest.approx(expected, rel=1e-4)
    assert rankme(features * 1e3) == pytest.approx(expected, rel=1e-4)


def test_many_rows_equal_plain_singular_values() -> None:
    features = torch.randn(20_000, 3, dtype=torch.float64) * torch.tensor([4.0, 2, 1])
    shares = torch.linalg.svdvals(features)
    shares = shares / shares.sum()
    expected = float((-(shares * shares.log()).sum()).exp())
    assert rankme(features) == pytest.approx(expected, rel=1e-4)


def test_collapse() -> None:
    line = torch.randn(100, 1) * torch.randn(1, 16)
    assert rankme(line) == pytest.approx(1.0, abs=1e-3)
    assert rankme(torch.zeros(10, 4)) == 0.0


@pytest.mark.parametrize(
    ('features', 'words'),
    [
        (torch.zeros(0, 3), 'not empty'),
        (torch.zeros(3), 'not empty'),
        (torch.full((3, 2), math.nan), 'NaN'),
    ],
)
def test_bad_input(features: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rankme(features)
