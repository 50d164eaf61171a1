"""A loss term from outside, as docs/extending.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from extended import component, run, shorten, steps_of, write_files
from tiny import batch, build_medic, medic_config
from tiny_runs import write_images

from medic_mm.errors import UserError
from medic_mm.models.medic.head import MEDiCHead, Step
from medic_mm.registry import MODELS


def test_trains_and_is_drawn_and_reported(tmp_path: Path) -> None:
    module, config = write_files('A loss term', tmp_path)
    assert module == 'my_term.py'
    shorten(tmp_path / config)
    images = write_images(tmp_path / 'images', 1)
    run(
        tmp_path,
        f'tools/train.py {config} --work-dir work',
        f'tools/visualize.py reconstruction {config} work/epoch_2.pth {images}'
        ' --out pictures',
        'tools/report.py work',
    )
    assert list((tmp_path / 'pictures').glob('*.png'))
    (page,) = (tmp_path / 'work').glob('*.html')
    assert 'loss_colour' in page.read_text()
    rows = steps_of(tmp_path / 'work')
    steps = [row for row in rows if 'loss_colour' in row]
    assert len(steps) == 10
    for row in steps:
        assert row['loss_colour'] == pytest.approx(0.1 * row['raw_colour'], rel=1e-3)
        parts = [v for k, v in row.items() if k.startswith('loss_')]
        assert row['loss'] == pytest.approx(sum(parts), rel=1e-3)
    assert any('knn' in key for row in rows for key in row)
    state = torch.load(tmp_path / 'work' / 'epoch_2.pth', weights_only=False)
    read = state['state_dict']['head.colour_loss.read.weight']
    assert read.shape == (3, 192)
    assert state['optimizer']['state']


def test_is_the_error_of_the_colours_of_hidden_patches(tmp_path: Path) -> None:
    term = component('A loss term', 'PatchColour', tmp_path)(patch_size=8)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 16, 192, generator=generator)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    mask = torch.arange(16).repeat(2, 1) % 3 == 0
    errors = []
    for image in range(2):
        for patch in range(0, 16, 3):
            top, left = patch // 4 * 8, patch % 4 * 8
            colour = images[image, :, top : top + 8, left : left + 8].mean((1, 2))
            error = term.read(pixels[image, patch]) - colour
            errors.append(error.square().mean())
    expected = torch.stack(errors).mean()
    torch.testing.assert_close(term(pixels, images, mask.float()), expected)


def test_patches_of_another_size_are_refused(tmp_path: Path) -> None:
    kind = component('A loss term', 'PatchColour', tmp_path)
    terms = dict(colour=dict(type=kind, patch_size=4))
    with pytest.raises(UserError, match=r'terms\.colour\.patch_size=4 must equal .* 8'):
        build_medic(weights=dict(colour=1.0), terms=terms)


class Everything(torch.nn.Module):
    """Keeps what it is called with."""

    looks_at = 'everything'

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, step: Step) -> torch.Tensor:
        self.seen = step
        return self.weight * step.pixels.square().mean()


def test_a_term_can_look_at_everything_and_the_defaults_stay_as_they_are() -> None:
    data, weights = batch(), dict(token=1.0, cls=0.3, pixel=0.01)
    plain = build_medic(weights=weights)
    expected = plain(**plain.data_preprocessor(data, True), mode='loss')
    mine = dict(type=Everything)
    model = build_medic(weights=dict(weights, mine=2.0), terms=dict(mine=mine))
    found = model(**model.data_preprocessor(batch(), True), mode='loss')
    assert [k for k in found if 'loss' in k] == [
        *('loss_token', 'loss_cls', 'loss_pixel', 'loss_mine')
    ]
    assert set(found) - set(expected) == {'loss_mine', 'raw_mine'}
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    step = model.head.mine_loss.seen
    assert found['raw_mine'] == step.pixels.square().mean()
    assert step.teacher.patch_tokens.shape == (4, 16, 24)
    found['loss_mine'].backward()
    assert model.head.mine_loss.weight.grad == 2 * found['raw_mine']


def test_a_term_keeps_decoder_and_teacher_alone() -> None:
    mine = dict(type=Everything)
    model = build_medic(weights=dict(mine=1.0), terms=dict(mine=mine))
    assert model.with_neck and model.with_target_generator
    assert not hasattr(model.head, 'projection')
    again = dict(type='medic_mm.TokenDistillationLoss')
    model = build_medic(weights=dict(again=1.0), terms=dict(again=again))
    assert model.neck is None
    found = model(**model.data_preprocessor(batch(), True), mode='loss')
    assert {'loss_again', 'cos_again', 'raw_again'} <= set(found)


MINE = dict(type=Everything)


@pytest.mark.parametrize(
    ('terms', 'weights', 'words'),
    [
        (dict(mine=MINE), dict(pixel=1.0), "no weight of the term 'mine'"),
        (dict(mine=MINE), None, "no weight of the term 'mine'"),
        (
            dict(a=dict(type=torch.nn.L1Loss)),
            dict(a=1.0),
            r"a\.type=L1Loss has looks_at=None: .* 'pixels', 'everything'",
        ),
        (dict(my_loss=MINE), dict(my_loss=1.0), "name 'my_loss': use a word without"),
        (dict(token=MINE), dict(token=1.0), "name 'token'.* not one of token, cls"),
        ({'a.b': MINE}, {'a.b': 1.0}, "name 'a.b'"),
        ({}, dict(mine=1.0), "unknown terms .'mine'"),
    ],
)
def test_terms_that_cannot_be_are_refused(terms, weights, words) -> None:
    with pytest.raises(UserError, match=words):
        MEDiCHead(48, 24, weights, terms=terms)


@pytest.mark.parametrize(('part', 'name'), [('neck', 'decoder'), (None, 'teacher')])
def test_a_term_without_what_it_looks_at_is_refused(part, name) -> None:
    mine = dict(type=Everything)
    config = medic_config(weights=dict(mine=1.0), terms=dict(mine=mine))
    config[part or 'target_generator'] = None
    with pytest.raises(UserError, match=f'the mine term needs a {name}'):
        MODELS.build(config)
