"""tools/visualize.py: pictures of a tiny model, and what it refuses."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled import knn_hook_config, make_folder
from mmengine.config import Config
from tiny_mimhd import build_mimhd, mimhd_config
from tiny_runs import mae_config, write_images

from medic_mm.errors import UserError
from medic_mm.pictures.attention import visualize_attention
from medic_mm.settings.images import find_images, load_images


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('labelled'), per_class=1)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    torch.save(dict(state_dict=build_mimhd().state_dict()), path)
    return path


def settings(folder: Path | None = None, **model) -> Config:
    """A config of a tiny MIM-HD with data for k-NN, if given a folder."""
    hooks = [] if folder is None else [knn_hook_config(folder)]
    return Config(
        dict(
            default_scope='mmpretrain',
            model={**mimhd_config(), **model},
            custom_hooks=hooks,
        )
    )


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/visualize.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'visualize.py'), run_name='__main__')


def share_of(colour: tuple, picture: Path) -> float:
    """Share of a picture's pixels that have a colour (BGR)."""
    pixels = cv2.imread(str(picture)).astype(int)
    return float((abs(pixels - colour) <= 1).all(-1).mean())


def test_tool_writes_a_picture_for_each_image_and_an_overview(
    folder: Path,
    checkpoint: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config, out = tmp_path / 'tiny.py', tmp_path / 'deep' / 'pictures'
    settings(folder).dump(config)
    colours = ((200, 100, 50), (30, 60, 220))
    images = [tmp_path / name / 'same.png' for name in ('b', 'a')]
    for path, colour in zip(images, colours, strict=True):
        path.parent.mkdir()
        cv2.imwrite(str(path), np.full((32, 32, 3), colour, np.uint8))
    run_tool(
        monkeypatch,
        root,
        *('attention', config, checkpoint, *images, '--limit', 2, '--out', out),
        *('--device', 'cpu', '--block', 2),
        *('--cfg-options', 'model.target_generator.block=4'),
    )
    files = [out / name for name in ('overview.png', '001_same.png', '002_same.png')]
    assert sorted(out.iterdir()) == sorted(files)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [f'wrote {file}' for file in files]
    # in the order that they were given, in the colours of the file
    for number, file in enumerate(files[1:]):
        # two of the ten cells, which leave a part of the page blank
        assert share_of(colours[number], file) > 0.05
        assert share_of(colours[1 - number], file) == 0
        assert share_of(colours[number], files[0]) > 0.03


def test_what_is_drawn_is_the_checkpoints_attention(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        'medic_mm.pictures.attention.draw_attention',
        lambda figure, picture, sides, index, *rest: seen.append((sides, picture)),
    )
    visualize_attention(settings(folder), str(checkpoint), [folder], tmp_path)
    model = build_mimhd()
    model.eval()
    paths = sorted(folder.rglob('*.png'))
    raw = np.stack([cv2.imread(str(path)) for path in paths])
    inputs = torch.from_numpy(raw).permute(0, 3, 1, 2)
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=[None] * 6), False)
    with torch.no_grad():
        _, student = model.backbone.forward_relations(data['inputs'], 3, tail=False)
        teacher = model.target_generator(
            data['inputs'], model.data_preprocessor.mean, model.data_preprocessor.std
        )
    assert len(seen) == 6
    for side, qkv in zip(seen[0][0], (student, teacher), strict=True):
        logits = qkv.query @ qkv.key.transpose(-2, -1) / 4  # heads are 16 wide
        expected = logits.softmax(-1)[:, :, 0, 1:].unflatten(-1, (4, 4))
        torch.testing.assert_close(side.weights, expected, atol=1e-6, rtol=1e-4)
    for (_, picture), image in zip(seen, inputs, strict=True):
        torch.testing.assert_close(picture, image.flip(0) / 255, atol=1e-4, rtol=0)


def test_the_hosts_mae_needs_no_teacher(tmp_path: Path) -> None:
    config = mae_config(write_images(tmp_path / 'images', per_class=1))
    drawn = visualize_attention(
        config, 'random', [tmp_path / 'images'], tmp_path / 'out', overlay=True
    )
    assert len(drawn.files) == 3
    assert drawn.notes == [
        'The config has no target_generator, so no teacher is shown.'
    ]


def test_a_teacher_that_cannot_be_read_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    config = settings(folder, target_generator=dict(type='medic_mm.TinyTeacher'))
    drawn = visualize_attention(config, 'random', [folder], tmp_path, limit=1)
    assert len(drawn.files) == 2
    assert len(drawn.notes) == 1
    assert drawn.notes[0].startswith(
        'The teacher is left out: attention cannot be read from TinyTeacher'
    )
    config.model.target_generator = dict(type='mmpretrain.CLIPGenerator')
    drawn = visualize_attention(config, 'random', [folder], tmp_path, limit=1)
    assert drawn.notes == [
        'The teacher is left out: attention cannot be read from CLIPGenerator.'
    ]


def test_a_missing_teacher_is_named_and_may_be_left_out(
    folder: Path, tmp_path: Path
) -> None:
    teacher = mimhd_config()['target_generator']
    teacher.update(random_weights=False, weights='none.pth')
    config = settings(folder, target_generator=teacher)
    with pytest.raises(UserError, match=r'none\.pth.*--no-teacher leaves it out'):
        visualize_attention(config, 'random', [folder], tmp_path, limit=1)
    drawn = visualize_attention(
        config, 'random', [folder], tmp_path, limit=1, with_teacher=False
    )
    assert drawn.notes == []


def test_images_take_the_way_of_the_evaluation_pipeline(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = (10, 20, 30)
    cv2.imwrite(str(tmp_path / 'wide.png'), image)
    path = [tmp_path / 'wide.png']
    fitted = load_images(settings(), path, (32, 32))
    # by the shorter side, and the middle of it: columns 20 to 60 are all that is left
    expected = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert fitted.shape == (1, 3, 32, 32)
    assert torch.equal(fitted[:, :, :, 1:-1], expected.expand(1, 3, 32, 30))
    config = settings(tmp_path)
    pipeline = config.custom_hooks[0].test_dataloader.dataset.pipeline
    pipeline.insert(1, dict(type='Resize', scale=(32, 32)))
    squeezed = load_images(config, path, (32, 32))
    assert squeezed[0, 0, 16].tolist() == pytest.approx([0] * 8 + [10] * 16 + [0] * 8)


def test_bad_input_gives_one_sentence(
    folder: Path,
    checkpoint: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config, empty, torn = (tmp_path / name for name in ('tiny.py', 'empty', 'torn.png'))
    settings(folder).dump(config)
    empty.mkdir()
    torn.write_bytes(b'no image')
    other = tmp_path / 'other.pth'
    weights = build_mimhd().state_dict()
    torch.save({k: v for k, v in weights.items() if k != 'backbone.cls_token'}, other)
    cases = {
        ('none.pth', folder): "checkpoint 'none.pth' does not exist",
        (other, folder): 'does not fit: missing cls_token',
        ('random', tmp_path / 'none'): f"image '{tmp_path}/none' does not exist",
        ('random', empty): f"the folder '{empty}' holds no images",
        ('random', torn): f'{torn} cannot be read: it is not an image',
        ('random', folder, '--block', 4): 'block=4 is out of range',
        ('random', folder, '--limit', 0): '--limit 0: use 1 or more',
        ('random', folder, '--out', torn): f'--out {torn} is a file: give a folder',
    }
    for words, sentence in cases.items():
        out = ('--out', tmp_path / 'out')
        with pytest.raises(SystemExit) as stop:
            run_tool(
                monkeypatch, root, 'attention', config, *words[:2], *out, *words[2:]
            )
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert sentence in error
        assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_other_backbones_are_refused(folder: Path, tmp_path: Path) -> None:
    backbone = dict(type='mmpretrain.ResNet', depth=18)
    with pytest.raises(UserError, match='cannot be read from ResNet: it takes'):
        visualize_attention(
            settings(folder, backbone=backbone), 'random', [folder], tmp_path
        )
    config = Config(dict(model=dict(type='MAE')))
    with pytest.raises(UserError, match=r'no model\.backbone'):
        visualize_attention(config, 'random', [folder], tmp_path)


def test_images_are_found_in_order(folder: Path) -> None:
    files = sorted((folder / 'val').rglob('*.png'))
    assert find_images([files[2], folder / 'val'], 3) == [files[2], *files[:2]]
