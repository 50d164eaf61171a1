"""A matching of heads from outside, as docs/extending.md shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from extended import run, write_files
from literal_relations import literal_matrix, literal_relation, sides
from tiny_runs import write_images

from medic_mm.models.losses import relation_kl
from medic_mm.models.mimhd.matching import HeadMatching, Matched

SHORT = """
train_cfg = dict(max_epochs=2)
train_dataloader = dict(
    batch_size=20, num_workers=0, persistent_workers=False, dataset=dict(length=100)
)
default_hooks = dict(logger=dict(interval=1))
model['target_generator'] = dict(weights=None, random_weights=True)
_knn = dict(batch_size=50, num_workers=0)
_images = dict(
    type='medic_mm.EmbeddedShapes', length=100, pipeline=[dict(type='PackInputs')]
)
custom_hooks = [
    dict(
        type='medic_mm.KNNHook',
        interval=2,
        k=(20,),
        train_dataloader=dict(**_knn, dataset=dict(_images, split='train')),
        test_dataloader=dict(**_knn, dataset=dict(_images, split='val')),
    ),
]
"""


def test_trains_and_is_drawn_and_reported(tmp_path: Path) -> None:
    module, config = write_files('A matching of heads', tmp_path)
    assert module == 'my_matching.py'
    with (tmp_path / config).open('a') as file:
        file.write(SHORT)
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
    log = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    steps = [row for row in rows if 'loss_qk' in row]
    assert len(steps) == 10
    for row in steps:
        # two teacher heads of equal weight
        assert row['entropy_qk'] == pytest.approx(math.log(2), abs=1e-4)
        assert 2 <= row['used_heads_vv'] <= 8
    assert any('knn' in key for row in rows for key in row)


def test_is_the_mean_distance_to_the_nearest_heads(tmp_path: Path) -> None:
    module, _ = write_files('A matching of heads', tmp_path)
    # not registered here, where other tests go through all registered components
    code = (tmp_path / module).read_text().replace('@MODELS.register_module()\n', '')
    found: dict = {}
    exec(code, found)
    assert issubclass(found['NearestMatching'], HeadMatching)
    student = sides(3, 4)
    teacher = tuple(side.detach() for side in sides(4, 6, seed=7))
    out: Matched = found['NearestMatching'](3, 4, count=2)(
        student, teacher, relation_kl
    )
    matrix = literal_matrix(
        'kl', literal_relation(*student), literal_relation(*teacher)
    )
    values = [sorted(row.tolist())[:2] for image in matrix for row in image]
    expected = sum(sum(pair) / 2 for pair in values) / len(values)
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(out.weights.sum(-1), torch.ones(2, 3))
    gradients = torch.autograd.grad(out.loss, student)
    assert all(gradient.abs().max() > 1e-5 for gradient in gradients)
