"""Reconstructions: statistics given back, visible patches kept, hidden ones grey."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from mmengine.registry import DefaultScope
from tiny import MEAN, STD, batch, build_medic
from tiny_mimhd import build_mimhd, image_batch, initialised, mimhd_config
from tiny_runs import mae_config
from torch import Tensor, nn

from medic_mm.pictures.reconstruction import (
    Reconstruction,
    draw_reconstruction,
    draw_views,
    reconstruct,
    restore_patches,
    rows_of,
)
from medic_mm.registry import MODELS


def pixels_of(mask: Tensor, patch: int = 8) -> Tensor:
    """A mask of patches ``(L,)`` as one of pixels, patch by patch."""
    side = int(len(mask) ** 0.5)
    pixels = torch.zeros(side * patch, side * patch, dtype=torch.bool)
    for place, hidden in enumerate(mask.tolist()):
        row, column = divmod(place, side)
        box = pixels[row * patch : (row + 1) * patch]
        box[:, column * patch : (column + 1) * patch] = hidden
    return pixels


def normalised(data: dict) -> Tensor:
    rgb = data['inputs'].flip(1).float()
    return (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def shown(images: Tensor) -> Tensor:
    """Normalised images as RGB in 0..1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) / 255).clamp(0, 1)


def build_mae() -> nn.Module:
    """The host's MAE, with per-patch normalised pixels."""
    config = mae_config('nowhere').model
    config['head']['norm_pix'] = True
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config)
    model.init_weights()
    return model


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
    assert found.joint is None
    (view,) = found.views
    for i, sample in enumerate(data['data_samples']):
        assert torch.equal(view.hidden[i], sample.mask.flatten().bool())
        hidden = pixels_of(view.hidden[i])
        grey = found.views[0].masked[i][0, hidden][0]
        assert (found.views[0].masked[i][:, hidden] == grey).all()
        assert (view.alone[i][:, ~hidden] == grey).all()
        assert torch.equal(view.alone[i][:, hidden], view.reconstructed[i][:, hidden])
        for picture in (
            found.views[0].masked,
            found.views[0].reconstructed,
            view.guess,
        ):
            assert torch.equal(picture[i][:, ~hidden], found.images[i][:, ~hidden])
        assert not torch.allclose(
            found.views[0].reconstructed[i][:, hidden],
            found.images[i][:, hidden],
            atol=0.05,
        )


@pytest.mark.parametrize('pixels_normalised', [True, False])
def test_a_perfect_prediction_gives_the_input_back(monkeypatch, pixels_normalised):
    model, data = build_medic(), batch()
    head = model.head.pixel_loss
    head.norm_pix = pixels_normalised
    perfect = head.construct_target(normalised(data))
    predict = model.predict_pixels
    monkeypatch.setattr(model, 'predict_pixels', lambda *x: (perfect, predict(*x)[1]))
    found = reconstruct(model, data)
    rgb = data['inputs'].flip(1) / 255
    assert torch.allclose(found.views[0].reconstructed, rgb, atol=1e-4)
    assert found.per_patch is pixels_normalised
    assert torch.allclose(found.views[0].error, torch.zeros(4), atol=1e-8)


def test_no_prediction_is_each_patchs_mean_and_an_error_of_its_variance(monkeypatch):
    model, data = build_medic(), batch()
    nothing = torch.zeros(4, 16, 192)
    predict = model.predict_pixels
    monkeypatch.setattr(model, 'predict_pixels', lambda *x: (nothing, predict(*x)[1]))
    found = reconstruct(model, data)
    # the target's variance is 1 with one degree of freedom less
    assert torch.allclose(found.views[0].error, torch.full((4,), 191 / 192), atol=1e-4)
    assert torch.allclose(found.views[0].reconstructed, found.views[0].guess, atol=1e-5)
    images = normalised(data)
    means = torch.empty_like(images)
    for row in range(4):
        for column in range(4):
            rows, columns = (
                slice(8 * row, 8 * row + 8),
                slice(8 * column, 8 * column + 8),
            )
            for image, mean in zip(images, means, strict=True):
                mean[:, rows, columns] = image[:, rows, columns].mean()
    assert torch.allclose(found.means, shown(means), atol=1e-5)


def test_the_error_is_the_loss_of_the_pixel_head():
    model, data = build_medic(), batch()
    found = reconstruct(model, data)
    samples = data['data_samples']
    images = normalised(data)
    with torch.no_grad():
        pixels, mask = model.predict_pixels(images, samples)
        loss = model.head.pixel_loss.loss(pixels, images, mask.float())
    # every image hides as many patches, so the mean of means is the mean
    torch.testing.assert_close(found.views[0].error.mean(), loss, atol=1e-5, rtol=1e-5)


def test_mimhds_views_are_complements_and_each_patch_is_from_the_one_that_hides_it():
    model, data = build_mimhd(mask_ratio=0.25), image_batch()
    torch.manual_seed(3)
    found = reconstruct(model, data)
    first, second = found.views
    assert torch.equal(first.hidden, ~second.hidden)
    assert first.hidden.sum(1).tolist() == [4] * 4
    images = normalised(data)
    head, teacher, neck = model.head.pixel_loss, model.target_generator, model.neck
    with torch.no_grad():
        tokens = teacher.embed_for_decoder(neck.adapter(model.backbone(images)[-1]))
        decoded = []
        for view in found.views:  # by hand, one view after the other
            of_view = tokens.clone()
            of_view[:, 1:][view.hidden] = neck.mask_token[0, 0]
            restored = restore_patches(teacher.decode(of_view), head.patchify(images))
            decoded.append(shown(head.unpatchify(restored)))
    for i in range(4):
        hidden = pixels_of(first.hidden[i])
        for view, own, mask in (
            (first, decoded[0], hidden),
            (second, decoded[1], ~hidden),
        ):
            close = dict(atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                view.reconstructed[i][:, mask], own[i][:, mask], **close
            )
            torch.testing.assert_close(
                found.joint[i][:, mask], own[i][:, mask], **close
            )
            assert torch.equal(
                view.reconstructed[i][:, ~mask], found.images[i][:, ~mask]
            )
            assert torch.equal(view.masked[i][:, ~mask], found.images[i][:, ~mask])
        # the views do differ, so that a mix-up would show
        assert not torch.allclose(decoded[0][i], decoded[1][i], atol=1e-3)


@pytest.mark.parametrize('norm_pix', [True, False])
def test_pixels_of_a_frozen_decoder_are_shown_in_its_statistics(monkeypatch, norm_pix):
    config = mimhd_config()
    config['data_preprocessor'].update(mean=[127.5] * 3, std=[50.0, 60.0, 70.0])
    config['head']['pixel_loss']['norm_pix'] = norm_pix
    config['target_generator']['norm_pix'] = norm_pix
    model, data = initialised(config), image_batch()
    # ImageNet's, whatever the student's are
    perfect = model.head.pixel_loss.construct_target(normalised(data))
    predict = model.predict_pixels
    monkeypatch.setattr(model, 'predict_pixels', lambda *x: (perfect, predict(*x)[1]))
    found = reconstruct(model, data)
    rgb = data['inputs'].flip(1) / 255
    torch.testing.assert_close(found.views[0].reconstructed, rgb, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.images, rgb, atol=1e-4, rtol=0)
    assert found.views[0].error.max() < 1e-6


def test_one_view_alone_has_no_joint_prediction():
    model = build_mimhd()
    model.neck.views = 1
    found = reconstruct(model, image_batch())
    assert len(found.views) == 1
    assert found.joint is None


def test_the_hosts_mae_is_drawn_as_it_predicts():
    model, data = build_mae(), image_batch()
    torch.manual_seed(5)
    found = reconstruct(model, data)
    mean, std = 127.5, 64.0
    images = (data['inputs'].float() - mean) / std
    torch.manual_seed(5)
    with torch.no_grad():
        tokens, mask, restore = model.backbone(images)
        pixels = model.neck(tokens, restore)
        loss = model.head.loss(pixels, images, mask)
    restored = model.head.unpatchify(
        restore_patches(pixels, model.head.patchify(images))
    )
    expected = ((restored * std + mean) / 255).clamp(0, 1)
    torch.testing.assert_close(found.views[0].error.mean(), loss, atol=1e-5, rtol=1e-5)
    for i in range(4):
        hidden = pixels_of(mask[i].bool())
        torch.testing.assert_close(
            found.views[0].reconstructed[i][:, hidden], expected[i][:, hidden]
        )
        assert torch.equal(
            found.views[0].reconstructed[i][:, ~hidden], found.images[i][:, ~hidden]
        )


def test_models_without_pixels_are_refused():
    model = build_medic(weights=dict(token=1.0))
    with pytest.raises(ValueError, match='no pixel decoder'):
        reconstruct(model, batch())
    with pytest.raises(ValueError, match='Linear has no pixels to show'):
        reconstruct(nn.Linear(2, 2), batch())


def drawn_rows(figure: Figure, columns: int) -> list[list[Tensor]]:
    axes = figure.axes
    pictures = [torch.tensor(axis.images[0].get_array()) for axis in axes]
    return [pictures[i : i + columns] for i in range(0, len(axes), columns)]


def assert_rows(figure: Figure, expected: list[Tensor]) -> None:
    found = drawn_rows(figure, len(expected[0]))
    assert len(found) == len(expected)
    for row, pictures in zip(found, expected, strict=True):
        for picture, image in zip(row, pictures, strict=True):
            assert torch.equal(picture, image.permute(1, 2, 0))


def test_each_picture_is_drawn_in_its_place():
    found = reconstruct(build_medic(), batch())
    figure = Figure()
    names = ['one', 'two', 'three', 'four']
    draw_reconstruction(figure, found, names)
    assert_rows(
        figure, [found.images, found.views[0].masked, found.views[0].reconstructed]
    )
    assert [axis.get_title() for axis in figure.axes[:4]] == names


def assert_errors(figure: Figure, row: int, errors: Tensor) -> None:
    columns = len(errors)
    axes = figure.axes[row * columns : (row + 1) * columns]
    expected = [f'error {value:.2f}' for value in errors.tolist()]
    assert [axis.get_xlabel() for axis in axes] == expected


@pytest.mark.parametrize('kind', ['medic', 'mimhd'])
def test_all_rows_are_drawn_with_their_errors(kind):
    if kind == 'medic':
        found = reconstruct(build_medic(), batch())
        (view,) = found.views
        expected = [view.masked, view.reconstructed, view.alone, view.guess]
        errors = {2: view.error}
    else:
        found = reconstruct(build_mimhd(), image_batch())
        first, second = found.views
        expected = [first.masked, first.reconstructed]
        expected += [second.masked, second.reconstructed, found.joint, found.means]
        errors = {2: first.error, 4: second.error}
    figure = Figure()
    draw_views(figure, found, list('abcd'), 'A heading', ['A note.'])
    assert_rows(figure, [found.images, *expected])
    for row, error in errors.items():
        assert_errors(figure, row, error)
    texts = [text.get_text() for text in figure.texts]
    assert any(text.startswith('A note.') for text in texts)


def test_true_means_are_a_row_only_where_the_network_is_given_them(monkeypatch):
    model = build_medic()
    assert list(rows_of(reconstruct(model, batch())))[-1] == 'true means\nonly'
    model.head.pixel_loss.norm_pix = False
    found: Reconstruction = reconstruct(model, batch())
    assert list(rows_of(found))[-1] == 'predicted\nalone'
