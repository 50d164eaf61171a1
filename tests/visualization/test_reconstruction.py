"""Reconstructions: statistics given back, visible patches kept, hidden ones grey."""

import pytest
import torch
from matplotlib.figure import Figure
from tiny import MEAN, STD, batch, build_medic

from medic_mm.visualization import (
    draw_reconstruction,
    reconstruct,
    restore_patches,
)


def test_restoring_inverts_the_normalised_target():
    head = build_medic().head.pixel_loss
    images = torch.randn(3, 3, 32, 32)
    restored = restore_patches(head.construct_target(images), head.patchify(images))
    assert torch.allclose(head.unpatchify(restored), images, atol=1e-5)


@pytest.mark.parametrize('encoding', ['sparse', 'dense'])
def test_visible_patches_are_the_input_and_hidden_ones_are_grey(encoding):
    model, data = build_medic(encoding), batch()
    found = reconstruct(model, data)
    rgb = data['inputs'].flip(1) / 255  # the batch is BGR
    assert torch.allclose(found.images, rgb, atol=1e-5)
    for i, sample in enumerate(data['data_samples']):
        hidden = sample.mask.repeat_interleave(8, 0).repeat_interleave(8, 1).bool()
        assert (found.masked[i][:, hidden] == found.masked[i][:, hidden][0, 0]).all()
        for picture in (found.masked, found.reconstructed):
            assert torch.equal(picture[i][:, ~hidden], found.images[i][:, ~hidden])
        assert not torch.allclose(
            found.reconstructed[i][:, hidden], found.images[i][:, hidden], atol=0.05
        )


@pytest.mark.parametrize('normalised', [True, False])
def test_a_perfect_prediction_gives_the_input_back(monkeypatch, normalised):
    model, data = build_medic(), batch()
    head = model.head.pixel_loss
    head.norm_pix = normalised
    rgb = data['inputs'].flip(1).float()
    images = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    perfect = head.construct_target(images)
    monkeypatch.setattr(model, 'decode', lambda tokens, split: perfect)
    found = reconstruct(model, data)
    assert torch.allclose(found.reconstructed, rgb / 255, atol=1e-4)
    assert found.per_patch is normalised


def test_a_model_without_decoder_is_refused():
    model = build_medic(weights=dict(token=1.0))
    with pytest.raises(ValueError, match='no pixel decoder'):
        reconstruct(model, batch())


def test_each_picture_is_drawn_in_its_place():
    found = reconstruct(build_medic(), batch())
    figure = Figure()
    draw_reconstruction(figure, found, ['one', 'two', 'three', 'four'])
    rows = [figure.axes[i : i + 4] for i in (0, 4, 8)]
    pictures = (found.images, found.masked, found.reconstructed)
    for row, expected in zip(rows, pictures, strict=True):
        for axis, picture in zip(row, expected, strict=True):
            shown = torch.tensor(axis.images[0].get_array())
            assert torch.equal(shown, picture.permute(1, 2, 0))
    assert [axis.get_title() for axis in rows[0]] == ['one', 'two', 'three', 'four']
