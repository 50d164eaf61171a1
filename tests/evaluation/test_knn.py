"""k-NN against a literal double loop, and what bounds its memory."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import medic_mm.evaluation.knn as knn
from medic_mm.evaluation import (
    knn_accuracy,
    knn_hits,
    knn_predict,
    knn_predict_many,
    nearest_neighbours,
)


def slow_similarity(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else 0.0


def slow_knn(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, k: int, tau: float
) -> Tensor:
    """The definition, one query and one neighbour at a time."""
    scores = torch.zeros(len(queries), classes, dtype=torch.float64)
    for row, query in enumerate(queries):
        similar = [(slow_similarity(query, f), place) for place, f in enumerate(bank)]
        nearest = sorted(similar, key=lambda pair: (-pair[0], pair[1]))[:k]
        for similarity, place in nearest:
            weight = math.exp(similarity / tau)
            scores[row, int(labels[place])] += weight
    return scores


def random_problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randn(60, 8, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    return bank, labels, torch.randn(17, 8, generator=generator)


def tied_problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Corners of a cube: few similarities, all exact, so ties are everywhere."""
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randint(2, (80, 4), generator=generator).float() * 2 - 1
    labels = torch.randint(5, (80,), generator=generator)
    queries = torch.randint(2, (12, 4), generator=generator).float() * 2 - 1
    return bank, labels, queries


@pytest.mark.parametrize('k', [1, 7, 20, 60])
@pytest.mark.parametrize('tau', [0.07, 1.0])
def test_equals_the_double_loop(k: int, tau: float) -> None:
    bank, labels, queries = random_problem()
    found = knn_predict(bank, labels, queries, 6, k=k, temperature=tau)
    expected = slow_knn(bank, labels, queries, 6, k, tau)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)
    assert (found[:, 4:] == 0).all()  # classes without a bank feature


@pytest.mark.parametrize('k', [1, 2, 5, 33, 80])
def test_ties_go_to_the_first_of_the_bank(k: int) -> None:
    bank, labels, queries = tied_problem()
    expected = slow_knn(bank, labels, queries, 5, k, 0.5)
    found = knn_predict(bank, labels, queries, 5, k=k, temperature=0.5)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('query_chunk', [1, 5, 100])
@pytest.mark.parametrize('bank_chunk', [1, 3, 10, 11, 79, 1000])
def test_chunks_do_not_change_neighbours(query_chunk: int, bank_chunk: int) -> None:
    bank, _, queries = tied_problem(1)
    similarities, places = nearest_neighbours(
        bank, queries, 10, query_chunk=query_chunk, bank_chunk=bank_chunk
    )
    for row, query in enumerate(queries):
        exact = [float(query @ feature) / 4 for feature in bank]
        order = sorted(range(80), key=lambda place: (-exact[place], place))[:10]
        assert places[row].tolist() == order
        assert similarities[row].tolist() == [exact[place] for place in order]


def test_signed_zeros_are_equal() -> None:
    bank = torch.tensor([[0.0, -1.0], [0.0, 1.0], [-1.0, 0.0]])
    similarities, places = nearest_neighbours(bank, torch.tensor([[1.0, 0.0]]), 3)
    assert places.tolist() == [[0, 1, 2]]
    assert similarities.tolist() == [[0.0, 0.0, -1.0]]


def test_several_k_equal_single_runs() -> None:
    bank, labels, queries = random_problem(1)
    many = knn_predict_many(bank, labels, queries, 4, ks=(20, 1, 5))
    assert list(many) == [20, 1, 5]
    for k, scores in many.items():
        expected = slow_knn(bank, labels, queries, 4, k, 0.07)
        torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=1e-4)


def test_more_neighbours_than_features() -> None:
    bank, labels, queries = random_problem(2)
    with pytest.warns(UserWarning, match='k=200 is larger than the bank of 60'):
        many = knn_predict_many(bank, labels, queries, 4, ks=(10, 60, 200))
    assert torch.equal(many[200], many[60])
    assert not torch.equal(many[10], many[60])


def test_zero_features_and_extreme_scales() -> None:
    bank, labels, queries = random_problem(3)
    plain = knn_predict(bank, labels, queries, 4)
    for scale in (1e-30, 1e30):
        scaled = knn_predict(bank * scale, labels, queries / scale, 4)
        torch.testing.assert_close(scaled, plain, atol=1e-5, rtol=1e-4)
    bank[::3], queries[0] = 0, 0
    found = knn_predict(bank, labels, queries, 4)
    expected = slow_knn(bank, labels, queries, 4, 20, 0.07)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)
    # a query of zeros is as far from everything: the first k vote alike
    counts = torch.bincount(labels[:20], minlength=4).float()
    torch.testing.assert_close(found[0], counts)


def test_small_temperature_is_nearest_neighbour() -> None:
    bank, labels, queries = random_problem(4)
    found = knn_predict(bank, labels, queries, 4, k=60, temperature=1e-6)
    assert torch.isfinite(found).all()
    nearest = slow_knn(bank, labels, queries, 4, 1, 1.0).argmax(1)
    assert torch.equal(found.argmax(1), nearest)


def test_half_precision_input() -> None:
    bank, labels, queries = random_problem(5)
    found = knn_predict(bank.half(), labels.int(), queries.bfloat16(), 4, k=5)
    bank, queries = bank.half().float(), queries.bfloat16().float()
    expected = knn_predict(bank, labels, queries, 4, k=5)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_accuracy_counts_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, '_CHUNK', 5)
    bank, labels, queries = random_problem(6)
    truth = torch.arange(17) % 6
    found = knn_accuracy(bank, labels, queries, truth, 6, ks=(3, 20), topk=(1, 2))
    for k in (3, 20):
        scores = slow_knn(bank, labels, queries, 6, k, 0.07)
        for n in (1, 2):
            hits = 0
            for row in range(17):
                voted = [c for c in range(6) if scores[row, c] > 0]
                best = sorted(voted, key=lambda c: (-float(scores[row, c]), c))[:n]
                hits += int(truth[row]) in best
            assert found[k][n] == pytest.approx(100 * hits / 17)
    parts = [
        knn_hits(bank, labels, queries[i::2], truth[i::2], 6, (3, 20), topk=(1, 2))
        for i in (0, 1)
    ]
    whole = knn_hits(bank, labels, queries, truth, 6, (3, 20), topk=(1, 2))
    assert torch.equal(parts[0] + parts[1], whole)


def test_class_without_vote_is_no_hit() -> None:
    bank, queries = torch.eye(3), torch.eye(3)
    labels = torch.tensor([5, 5, 5])
    found = knn_accuracy(bank, labels, queries, torch.zeros(3).long(), 6, ks=(1,))
    assert found == {1: {1: 0.0, 5: 0.0}}


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that an operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return result


@pytest.mark.parametrize('tied', [False, True])
def test_no_tensor_outgrows_its_chunks(tied: bool) -> None:
    bank, queries = torch.randn(4000, 4), torch.randn(600, 4)
    if tied:
        bank[:] = 1
    chunks = dict(query_chunk=50, bank_chunk=200)
    with LargestTensor() as seen:
        nearest_neighbours(bank, queries, 5, **chunks)
    # keys of a chunk are int64, results are 8 bytes for each neighbour
    views = bank.numel() * 4  # slices of the inputs are no new memory
    assert seen.largest <= max(50 * 200 * 8, 600 * 5 * 8, 200 * 4 * 4, views)
    assert seen.largest < 600 * 4000 * 4 / 10


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(train_labels=None), 'train_labels is None'),
        (dict(train_labels=torch.zeros(9).long()), r'shape \(9,\) but must be \(10,\)'),
        (dict(train_labels=torch.full((10,), 3)), 'allows 0 to 2'),
        (dict(train_labels=torch.full((10,), -1)), 'classes -1 to -1'),
        (dict(train_labels=torch.zeros(10)), 'must hold integers'),
        (dict(test_feats=torch.ones(2, 5)), '4 dimensions but test_feats 5'),
        (dict(test_feats=torch.ones(4)), r'must be \(N, D\)'),
        (dict(test_feats=torch.full((2, 4), math.nan)), 'test_feats has NaN'),
        (dict(train_feats=torch.full((10, 4), math.inf)), 'train_feats has NaN'),
        (
            dict(train_feats=torch.ones(0, 4), train_labels=torch.zeros(0).long()),
            'train_feats is empty',
        ),
        (dict(k=0), 'k=0 must be'),
        (dict(k=2.5), 'k=2.5 must be'),
        (dict(temperature=0.0), 'temperature=0.0 must be'),
        (dict(temperature=math.nan), 'temperature=nan must be'),
        (dict(num_classes=0), 'num_classes=0 must be'),
    ],
)
def test_bad_input_is_one_sentence(change: dict, words: str) -> None:
    good = dict(
        train_feats=torch.ones(10, 4),
        train_labels=torch.zeros(10).long(),
        test_feats=torch.ones(2, 4),
        num_classes=3,
        k=2,
    )
    assert knn_predict(**good).shape == (2, 3)
    with pytest.raises(ValueError, match=words):
        knn_predict(**{**good, **change})


def test_no_queries() -> None:
    bank, labels, queries = random_problem()
    assert knn_predict(bank, labels, queries[:0], 4).shape == (0, 4)
    with pytest.raises(ValueError, match='test_feats is empty'):
        knn_accuracy(bank, labels, queries[:0], labels[:0], 4)
    with pytest.raises(ValueError, match='must be 1 to 60'):
        nearest_neighbours(bank, queries, 61)


def test_needs_torch_alone() -> None:
    code = (
        'import sys; import medic_mm.evaluation; '
        'assert not {"mmengine", "mmpretrain", "mmcv"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
