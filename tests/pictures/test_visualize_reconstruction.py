"""tools/visualize.py reconstruction: tiny models, their masks, and what is refused."""

from __future__ import annotations

import copy
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled import CLASSES, knn_hook_config, make_folder, training_config
from mmengine.config import Config
from mmpretrain.structures import DataSample
from tiny import build_medic, medic_config
from tiny_mimhd import build_mimhd, mimhd_config
from tiny_runs import mae_config
from torch import Tensor, nn

from medic_mm.errors import UserError
from medic_mm.masking import PatchSplit
from medic_mm.models.medic import algorithm
from medic_mm.pictures.inputs import shorten
from medic_mm.pictures.reconstruction import Reconstruction, visualize_reconstruction

DRAW = 'medic_mm.pictures.reconstruction.draw_views'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('labelled'), per_class=2)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What is given to the drawing, in place of a figure."""
    seen: list[tuple] = []
    monkeypatch.setattr(DRAW, lambda figure, *given: seen.append(given))
    return seen


def medic(folder: Path, **model) -> Config:
    """MEDiC with random masks of half of the patches, and data for k-NN."""
    config = training_config(folder, folder / 'work', [knn_hook_config(folder)])
    config['model'].update(model)
    return Config(config)


def mimhd(folder: Path) -> Config:
    return Config(
        dict(
            default_scope='mmpretrain',
            model=mimhd_config(),
            custom_hooks=[knn_hook_config(folder)],
        )
    )


def save(model: nn.Module, path: Path, **changes: Tensor | None) -> str:
    state = {**model.state_dict(), **changes}
    torch.save(dict(state_dict={k: v for k, v in state.items() if v is not None}), path)
    return str(path)


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/visualize.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'visualize.py'), run_name='__main__')


def hidden_of(found: Reconstruction) -> list[int]:
    return found.views[0].hidden.sum(1).tolist()


def raw(paths: list[Path]) -> Tensor:
    pixels = np.stack([cv2.imread(str(path)) for path in paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_the_tool_draws_eight_images_a_picture(
    folder: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config = tmp_path / 'tiny.py'
    medic(folder).dump(config)
    checkpoint = save(build_medic(), tmp_path / 'epoch_1.pth')
    out = tmp_path / 'deep' / 'pictures'
    words = ('reconstruction', config, checkpoint, folder, '--limit', 9)
    run_tool(monkeypatch, root, *words, '--out', out, '--device', 'cpu')
    files = [out / name for name in ('reconstruction.png', 'reconstruction_2.png')]
    assert sorted(out.iterdir()) == files
    # a library may print when the tool first imports it
    printed = capsys.readouterr().out.splitlines()[-2:]
    assert printed == [f'wrote {file}' for file in files]
    # eight columns against one, and three lines of notes under both
    wide, narrow = (cv2.imread(str(file)).shape for file in files)
    assert wide[1] > 1.5 * narrow[1]


def test_what_is_drawn_is_the_checkpoints_prediction_at_masked_patches(
    folder: Path, tmp_path: Path, drawn: list
) -> None:
    torch.manual_seed(1)
    model = build_medic()
    checkpoint = save(model, tmp_path / 'epoch_1.pth')
    paths = sorted((folder / 'val').rglob('*.png'))
    visualize_reconstruction(medic(folder), checkpoint, paths, tmp_path / 'out')
    ((found, names, heading, notes),) = drawn
    inputs = raw(paths)
    torch.testing.assert_close(found.images, inputs.flip(1) / 255, atol=1e-4, rtol=0)
    assert hidden_of(found) == [8] * 6
    assert heading.startswith('MEDiC: 8 of 16 patches are hidden')
    assert names == [path.stem for path in paths]
    assert notes == []
    # the same by hand, from the masks that were drawn
    masks = found.views[0].hidden.view(-1, 4, 4).numpy()
    samples = [DataSample().set_mask(mask) for mask in masks]
    model.eval()
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
    images = data['inputs']
    with torch.no_grad():
        pixels, mask = model.predict_pixels(images, samples)
        head = model.head.pixel_loss
        squared = (pixels - head.construct_target(images)).square().mean(-1)
    expected = torch.stack([e[m].mean() for e, m in zip(squared, mask, strict=True)])
    torch.testing.assert_close(found.views[0].error, expected, atol=1e-5, rtol=1e-5)


def test_masks_follow_the_config_the_ratio_and_the_seed(
    folder: Path, tmp_path: Path, drawn: list
) -> None:
    config = medic(folder)
    before = copy.deepcopy(config.to_dict())

    def masks(**settings) -> Tensor:
        visualize_reconstruction(
            config, 'random', [folder], tmp_path, limit=4, **settings
        )
        return drawn.pop()[0].views[0].hidden

    first = masks(seed=3)
    assert torch.equal(first, masks(seed=3))
    assert not torch.equal(first, masks(seed=4))
    assert masks(ratio=0.25).sum(1).tolist() == [4] * 4
    assert config.to_dict() == before, 'the ratio is not left in the config'
    config.train_dataloader.dataset.pipeline[2] = dict(
        type='medic_mm.GridMask', grid=4, num_masked=12
    )
    cells = masks().view(4, 2, 2, 2, 2).transpose(2, 3).flatten(3)
    assert (cells.sum(-1) == 3).all(), 'three of each 2x2 cell are hidden'
    assert masks(ratio=0.5).sum(1).tolist() == [8] * 4


def test_mimhd_and_mae_take_the_ratio_too(
    folder: Path, tmp_path: Path, drawn: list
) -> None:
    images = [folder / 'val']
    checkpoint = save(build_mimhd(), tmp_path / 'epoch_1.pth')
    visualize_reconstruction(mimhd(folder), checkpoint, images, tmp_path, ratio=0.25)
    found, _, heading, notes = drawn.pop()
    first, second = found.views
    assert first.hidden.sum(1).tolist() == [4] * 6
    assert torch.equal(first.hidden, ~second.hidden)
    assert heading.startswith('MIM-HD: view 1 hides 4 of 16 patches')
    assert notes[0].startswith('The student sees the whole image.')
    config = mae_config(folder / 'val')
    visualize_reconstruction(config, 'random', images, tmp_path)
    assert hidden_of(drawn[-1][0]) == [8] * 6
    visualize_reconstruction(config, 'random', images, tmp_path, ratio=0.75)
    assert hidden_of(drawn[-1][0]) == [12] * 6
    assert drawn[-1][2].startswith('MAE: 12 of 16 patches are hidden')


def test_without_images_the_classes_of_the_test_data_take_turns(
    folder: Path, tmp_path: Path, drawn: list
) -> None:
    visualize_reconstruction(medic(folder), 'random', [], tmp_path, limit=4)
    ((found, names, _, _),) = drawn
    assert names == [*CLASSES, CLASSES[0]]
    files = [folder / 'val' / name / '0.png' for name in CLASSES]
    files.append(folder / 'val' / CLASSES[0] / '1.png')
    expected = raw(files).flip(1) / 255
    torch.testing.assert_close(found.images, expected, atol=1e-4, rtol=0)


def test_a_model_that_makes_its_own_masks_gets_samples_without(
    folder: Path, tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(samples: list, device: torch.device) -> PatchSplit:
        assert not any('mask' in sample for sample in samples)
        hidden = torch.zeros(len(samples), 16, dtype=torch.bool)
        hidden[:, :5] = True
        return PatchSplit.from_mask(hidden)

    config = medic(folder)
    del config.train_dataloader.dataset.pipeline[2]
    with pytest.raises(UserError, match='the data samples have no mask'):
        visualize_reconstruction(config, 'random', [folder], tmp_path)
    monkeypatch.setattr(algorithm, 'given_masks', given)
    visualize_reconstruction(config, 'random', [folder], tmp_path, limit=2)
    assert hidden_of(drawn[0][0]) == [5, 5]


def refused(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    capsys: pytest.CaptureFixture,
    *words: object,
) -> str:
    """The one sentence that the tool ends with."""
    with pytest.raises(SystemExit) as stop:
        run_tool(monkeypatch, root, 'reconstruction', *words)
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith('error: ')]
    assert lines[-1] == error
    return error


def test_bad_input_gives_one_sentence(
    folder: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    model = build_medic()
    token = 'neck.mask_token'
    lacking = save(model, tmp_path / 'lacking.pth', **{token: None})
    surplus = save(model, tmp_path / 'surplus.pth', extra=torch.zeros(1))
    bent = save(model, tmp_path / 'bent.pth', **{token: torch.zeros(1, 1, 5)})
    configs = {
        'medic': medic(folder),
        'silent': medic(folder, **medic_config(weights=dict(token=1.0))),
        'bare': Config(dict(model=medic_config(), default_scope='mmpretrain')),
        'none': Config(dict(default_scope='mmpretrain')),
        'teacherless': mimhd(folder),
    }
    teacher = configs['teacherless'].model.target_generator
    teacher.update(random_weights=False, weights='none.pth')
    for name, config in configs.items():
        config.dump(tmp_path / f'{name}.py')
    images = folder / 'val'
    cases = {
        ('medic', lacking, images): r'lacking\.pth does not fit: missing '
        r'neck\.mask_token; unexpected nothing',
        ('medic', surplus, images): r'missing nothing; unexpected extra',
        ('medic', bent, images): r'size mismatch for neck\.mask_token',
        ('medic', 'none.pth', images): r"checkpoint 'none\.pth' does not exist",
        ('medic', 'random', images, '--ratio', 1): r'--ratio 1\.0: use a share above 0',
        ('medic', 'random', images, '--ratio', 0.01): r'would hide 0 of 16 patches',
        ('medic', 'random', '--limit', 0): r'--limit 0: use 1 or more',
        ('silent', 'random', images): r'no pixel decoder, so there is nothing',
        ('bare', 'random'): r'no IMAGES are given, and the config has no data for k-NN',
        ('bare', 'random', images, '--ratio', 0.5): r'no mask to change',
        ('none', 'random', images): r'no model\.backbone',
        ('teacherless', 'random', images): r'the teacher.* cannot be loaded: .*none',
    }
    for (name, *words), sentence in cases.items():
        call = (tmp_path / f'{name}.py', *words, '--out', tmp_path / 'out')
        assert re.search(sentence, refused(monkeypatch, root, capsys, *call))
    assert not (tmp_path / 'out').exists()


def test_names_are_cut_at_their_start() -> None:
    assert shorten('n01440764_tench') == 'n01440764_tench'
    assert shorten('0000_n01440764_tench') == '…01440764_tench'
