"""A picture from outside, as docs/extending.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from extended import ROOT, run, write_files
from mmengine.config import Config
from tiny_runs import write_images

from medic_mm.cli.main import call
from medic_mm.errors import UserError
from medic_mm.pictures import load_pictures, register_picture
from medic_mm.settings.images import load_images
from medic_mm.settings.student import load_student

QUICKSTART = f'{ROOT}/configs/quickstart/medic_tiny.py'


def mean_length(images: Path) -> float:
    """Of the patch tokens of the quickstart's random student, by hand."""
    config = Config.fromfile(QUICKSTART)
    student = load_student(config, 'random')
    paths = sorted(images.rglob('*.png'))
    inputs = load_images(config, paths, student.backbone.img_size)
    data = dict(inputs=inputs, data_samples=None)
    batch = student.data_preprocessor(data, False)['inputs']
    with torch.no_grad():
        tokens = student.extract_feat(batch)[-1][:, 1:]
    return float(tokens.square().sum(-1).sqrt().mean())


def test_is_found_by_the_config_and_by_its_module(tmp_path: Path) -> None:
    module, config = write_files('A picture', tmp_path)
    images = write_images(tmp_path / 'images', 1)
    words = f'random {images} --device cpu'
    asked = f'lengths {QUICKSTART} {words} --out a'
    printed = run(
        tmp_path,
        f'tools/visualize.py --import {module[:-3]} {asked}',
        f'tools/visualize.py {asked} --import my_picture',
        f'tools/visualize.py lengths {config} {words} --out b --block 1',
    )
    lines = [line for line in printed.splitlines() if 'mean length' in line]
    assert lines[0] == lines[1] == f'The mean length is {mean_length(images):.3f}.'
    assert lines[2] != lines[0], 'of another block'
    assert (tmp_path / 'a' / 'lengths.png').stat().st_size > 5_000


def test_the_config_alone_is_enough(tmp_path: Path) -> None:
    _, config = write_files('A picture', tmp_path)
    images = write_images(tmp_path / 'images', 1)
    run(tmp_path, f'tools/visualize.py lengths {config} random {images} --out b')
    assert (tmp_path / 'b' / 'lengths.png').is_file()


def test_what_cannot_be_found_is_said(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        call('visualize', ['--import', 'no_such_module', 'lengths'])
    error = capsys.readouterr().err
    assert error.startswith('error: --import no_such_module: No module named')
    assert 'PYTHONPATH' in error
    with pytest.raises(SystemExit):
        call('visualize', ['lengths', QUICKSTART])
    assert "invalid choice: 'lengths'" in capsys.readouterr().err


def test_a_name_is_given_once() -> None:
    draw = load_pictures()['masks'].draw
    with pytest.raises(UserError, match="a picture called 'masks' exists"):
        register_picture('masks', 'again', lambda parser: None)(draw)
