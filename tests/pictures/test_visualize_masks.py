"""tools/visualize.py masks, evolution and features: files, settings, errors."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny_mimhd import mimhd_config
from tiny_runs import mae_config, write_images

from medic_mm.errors import UserError
from medic_mm.pictures.evolution import visualize_evolution
from medic_mm.pictures.features import visualize_features
from medic_mm.pictures.masks import visualize_masks

QUICKSTART = 'configs/quickstart/medic_tiny.py'
RANDOM_TEACHER = 'model.target_generator.random_weights=True'


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of other sizes than any network's."""
    folder = tmp_path_factory.mktemp('photos')
    random = np.random.default_rng(0)
    for number, size in enumerate([(40, 60), (70, 50), (64, 64)]):
        coarse = random.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    return folder


@pytest.fixture
def run_tool(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Run tools/visualize.py as the command line does, from the root."""
    monkeypatch.chdir(root)

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, words)])
        runpy.run_path(str(root / 'tools' / 'visualize.py'), run_name='__main__')

    return run


def written(text: str) -> list[Path]:
    return [Path(line[6:]) for line in text.splitlines() if line.startswith('wrote ')]


@pytest.fixture
def drawn_masks(monkeypatch: pytest.MonkeyPatch) -> list:
    """Arguments of each call of ``draw_masks``, in place of a picture."""
    seen: list = []
    monkeypatch.setattr(
        'medic_mm.pictures.masks.draw_masks',
        lambda figure, *given: seen.append(given),
    )
    return seen


def mimhd(**settings) -> Config:
    return Config(
        dict(default_scope='mmpretrain', model={**mimhd_config(), **settings})
    )


def test_quickstarts_masks_and_evolution(
    run_tool, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ('--cfg-options', RANDOM_TEACHER)
    run_tool('masks', QUICKSTART, photos, '--out', tmp_path / 'a', *options)
    assert written(capsys.readouterr().out) == [tmp_path / 'a' / 'masks.png']
    height, width = cv2.imread(str(tmp_path / 'a' / 'masks.png')).shape[:2]
    assert width > 1.5 * height  # seven columns, three rows
    out = tmp_path / 'b'
    run_tool('evolution', QUICKSTART, photos, '--out', out, *options)
    printed = capsys.readouterr().out
    names = ['001_0.png', '002_1.png', '003_2.png', 'evolution.json']
    assert written(printed) == [out / name for name in names]
    assert sorted(path.name for path in out.iterdir()) == names
    record = json.loads((out / 'evolution.json').read_text())
    # the quickstart trains for 12 epochs, with masks of 40 %
    assert record['settings']['at'] == [0, 1, 2, 4, 8, 11]
    assert record['settings']['num_masked'] == 25
    assert record['grid'] == [8, 8]
    assert len(record['rows']) == 18
    for row in record['rows']:
        assert f'{row["components"]:.2f}' in printed
        assert np.mean(row['images']['boundary']) == pytest.approx(
            row['boundary'], abs=1e-3
        )


def test_quickstarts_features(
    run_tool, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for out, more in (('both', ()), ('student', ('--no-teacher',))):
        run_tool(
            *('features', QUICKSTART, 'random', photos, '--out', tmp_path / out),
            *(*more, '--block', 2, '--cfg-options', RANDOM_TEACHER),
        )
        assert written(capsys.readouterr().out) == [tmp_path / out / 'features.png']
    both, student = (
        cv2.imread(str(tmp_path / name / 'features.png')).shape
        for name in ('both', 'student')
    )
    assert both[1] == student[1]
    assert both[0] - student[0] == pytest.approx((1.55 + 0.06) * 130, abs=2)


def test_masks_without_a_config_need_no_model(
    run_tool, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, drawn_masks
) -> None:
    run_tool('masks', photos, '--out', tmp_path, '--limit', 2, '--ratio', 0.75)
    assert 'Without a config there is no attention' in capsys.readouterr().out
    [(pictures, masks, grid, settings)] = drawn_masks
    assert list(masks) == ['random', 'block', 'grid']
    assert (tuple(pictures.shape), grid) == ((2, 3, 224, 224), (14, 14))
    assert settings.num_masked == 147
    blue, green, red = cv2.imread(str(photos / '0.png')).mean((0, 1)) / 255
    expected = [red, green, blue]
    assert pictures[0].mean((1, 2)).tolist() == pytest.approx(expected, abs=0.1)


def test_the_ratio_is_the_configs_own(
    photos: Path, tmp_path: Path, drawn_masks
) -> None:
    config = mimhd()
    transform = dict(type='medic_mm.BlockMask', grid=4, num_masked=7, min_area=3)
    inside = dict(type='Wrapper', transforms=[transform])
    loader = dict(dataset=dict(dataset=dict(pipeline=[inside])))
    visualize_masks(config, [photos], tmp_path)
    config.train_dataloader = loader
    visualize_masks(config, [photos], tmp_path)
    transform.update(num_masked=None, mask_ratio=0.7)
    config.train_dataloader = loader
    visualize_masks(config, [photos], tmp_path)
    visualize_masks(config, [photos], tmp_path, ratio=0.25, alpha=0.5, seed=3)
    found = [(call[3].num_masked, call[3].min_area) for call in drawn_masks]
    # first MIM-HD's own default, one half
    assert found == [(8, 16), (7, 3), (11, 3), (4, 3)]
    assert (drawn_masks[3][3].alpha, drawn_masks[3][3].seed) == (0.5, 3)
    # MIM-HD's teacher gives queries and keys: six strategies, the same each time
    again = visualize_masks(config, [photos], tmp_path, ratio=0.25, alpha=0.5, seed=3)
    assert again.notes == []
    for name, mask in drawn_masks[3][1].items():
        assert (mask == drawn_masks[4][1][name]).all()
    assert len(drawn_masks[3][1]) == 6
    assert drawn_masks[3][3].clusters == 2  # one for ten of 16 patches


def test_the_hosts_mae_has_a_ratio_and_no_teacher(
    tmp_path: Path, photos: Path, drawn_masks
) -> None:
    config = mae_config(write_images(tmp_path / 'images', per_class=1))
    drawn = visualize_masks(config, [photos], tmp_path)
    assert drawn.notes == [
        'The config has no target_generator, so no teacher is shown.'
    ]
    [(_, masks, grid, settings)] = drawn_masks
    assert (len(masks), grid, settings.num_masked) == (3, (4, 4), 8)
    with pytest.raises(UserError, match="needs a teacher's attention: The config"):
        visualize_evolution(config, [photos], tmp_path)
    drawn = visualize_features(config, 'random', [photos], tmp_path)
    assert len(drawn.files) == len(drawn.notes) == 1


def test_a_teacher_of_another_grid_is_named(
    photos: Path, tmp_path: Path, drawn_masks
) -> None:
    config = mimhd()
    config.model.target_generator.input_size = 48
    drawn = visualize_masks(config, [photos], tmp_path)
    assert drawn.notes == [
        'Masks are drawn on the 6 x 6 patches of the teacher; the student has 4 x 4.'
    ]
    assert drawn_masks[0][2] == (6, 6)
    config.model.target_generator = dict(type='mmpretrain.CLIPGenerator')
    drawn = visualize_features(config, 'random', [photos], tmp_path)
    assert drawn.notes == [
        'The teacher is left out: its tokens cannot be read from CLIPGenerator.'
    ]


def test_bad_settings_give_one_sentence(
    run_tool, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, text = tmp_path / 'tiny.py', tmp_path / 'a.txt'
    mimhd().dump(config)
    text.write_text('no folder')
    cases = {
        ('masks', config): 'no images: name files or folders after',
        ('masks', photos, '--cfg-options', 'a=1'): '--cfg-options needs a config',
        ('masks', 'none.py', photos): "config 'none.py' does not exist",
        ('masks', config, photos, '--ratio', 1): '--ratio 1 would hide 0 of 16',
        ('masks', config, photos, '--alpha', 2): 'alpha=2.0 of evolved_mask must be',
        ('masks', config, photos, '--clusters', 17): 'num_clusters=17',
        ('masks', config, photos, '--spatial-bias', -1): 'spatial_bias=-1.0',
        ('masks', config, photos, '--out', text): 'is a file: give a folder',
        ('evolution', config, photos, '--epochs', 0): '--epochs 0: use 1 or more',
        ('evolution', config, photos, '--at', 300): '--at 300 is out of range',
        ('evolution', config, photos, '--clusters', 4, 8): 'first=4 and last=8',
        ('evolution', config, photos, '--gamma', -1): 'gamma=-1.0',
        ('features', config, 'random', photos, '--block', 4): 'block=4 is out of',
        ('features', config, 'none.pth', photos): "'none.pth' does not exist",
    }
    for words, sentence in cases.items():
        with pytest.raises(SystemExit) as stop:
            run_tool(words[0], '--out', tmp_path / 'out', *words[1:])
        assert stop.value.code == 1, words
        error = capsys.readouterr().err
        assert error.startswith('error: '), words
        assert sentence in error
        assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()
