"""A matching of heads from outside, as docs/extending.md shows it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from extended import component, run, shorten, steps_of, write_files
from literal_relations import literal_matrix, literal_relation, sides
from tiny_runs import write_images

from medic_mm.models.losses import relation_kl
from medic_mm.models.mimhd.matching import HeadMatching, Matched


def test_trains_and_is_drawn_and_reported(tmp_path: Path) -> None:
    module, config = write_files('A matching of heads', tmp_path)
    assert module == 'my_matching.py'
    shorten(tmp_path / config)
    images, pictures = write_images(tmp_path / 'images', 1), 'pictures'
    printed = run(
        tmp_path,
        f'tools/train.py {config} --work-dir work',
        f'tools/visualize.py reconstruction {config} work/epoch_2.pth {images}'
        f' --out {pictures}',
        'tools/report.py work',
    )
    assert list((tmp_path / pictures).glob('*.png')), printed
    assert list((tmp_path / 'work').glob('*.html')), printed
    rows = steps_of(tmp_path / 'work')
    steps = [row for row in rows if 'loss_qk' in row]
    assert len(steps) == 10
    for row in steps:
        # two teacher heads of equal weight
        assert row['entropy_qk'] == pytest.approx(math.log(2), abs=1e-4)
        assert 2 <= row['used_heads_vv'] <= 8
    assert any('knn' in key for row in rows for key in row)


def test_is_the_mean_distance_to_the_nearest_heads(tmp_path: Path) -> None:
    kind = component('A matching of heads', 'NearestMatching', tmp_path)
    assert issubclass(kind, HeadMatching)
    student = sides(3, 4)
    teacher = tuple(side.detach() for side in sides(4, 6, seed=7))
    out: Matched = kind(3, 4, count=2)(student, teacher, relation_kl)
    matrix = literal_matrix(
        'kl', literal_relation(*student), literal_relation(*teacher)
    )
    values = [sorted(row.tolist())[:2] for image in matrix for row in image]
    expected = sum(sum(pair) / 2 for pair in values) / len(values)
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(out.weights.sum(-1), torch.ones(2, 3))
    gradients = torch.autograd.grad(out.loss, student)
    assert all(gradient.abs().max() > 1e-5 for gradient in gradients)
