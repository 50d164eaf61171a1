"""PanelHook: the right pictures at the right steps, and no trace in the training."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import loader_config, make_folder, training_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from tiny_mimhd import mimhd_config

from medic_mm.engine.hooks import PanelHook, panel_hook
from medic_mm.pictures.panel import Panel

COUNTER = itertools.count()
MASK = dict(type='medic_mm.RandomMask', grid=4, mask_ratio=0.5)
RECONSTRUCTED = ['input', 'masked', 'recon-\nstruction']
FEATURES = ['student\nfeatures', 'teacher\nfeatures']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('labelled'))


def hook_config(folder: Path, masked: bool = True, **settings) -> dict:
    dataset = loader_config(folder, 'val')['dataset']
    if masked:
        dataset['pipeline'].insert(1, MASK)
    return dict(
        type='medic_mm.PanelHook', dataset=dataset, interval=1, num_images=3, **settings
    )


def build(folder: Path, work_dir: Path, *hooks: dict, **changes) -> Runner:
    settings = {**training_config(folder, work_dir, list(hooks)), **changes}
    settings.setdefault('default_hooks', dict(checkpoint=None))
    settings['experiment_name'] = f'panel_{next(COUNTER)}'
    return Runner.from_cfg(Config(settings))


def mimhd_run(folder: Path, work_dir: Path, *hooks: dict, **changes) -> Runner:
    model = mimhd_config()
    model['backbone']['drop_path_rate'] = 0.3
    return build(folder, work_dir, *hooks, model=model, **changes)


def pictures(runner: Runner) -> list[str]:
    found = Path(runner.log_dir, 'vis_data', 'vis_image').glob('*.png')
    return sorted(path.name for path in found)


def panel_of(runner: Runner) -> Panel:
    hook = next(h for h in runner.hooks if isinstance(h, PanelHook))
    return hook._make(runner)


@pytest.mark.parametrize('make', [build, mimhd_run])
def test_training_is_the_same_with_and_without(make, folder: Path, tmp_path: Path):
    plain = make(folder, tmp_path / 'plain')
    plain.train()
    watched = make(folder, tmp_path / 'watched', hook_config(folder))
    watched.train()
    assert pictures(watched) == ['panel_1.png', 'panel_2.png']
    assert pictures(plain) == []
    ours, theirs = watched.model.state_dict(), plain.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    modes = [[m.training for m in r.model.modules()] for r in (watched, plain)]
    assert modes[0] == modes[1]
    # a network that learned nothing would pass as well
    start = make(folder, tmp_path / 'start')
    start._init_model_weights()
    name = 'backbone.layers.0.attn.qkv.weight'
    assert not torch.equal(ours[name], start.model.state_dict()[name])


def test_intervals_and_the_last_panel(folder: Path, tmp_path: Path) -> None:
    hook = {**hook_config(folder), 'interval': 2}
    runner = build(folder, tmp_path, hook, train_cfg=dict(by_epoch=True, max_epochs=3))
    runner.train()
    assert pictures(runner) == ['panel_2.png', 'panel_3.png']


def test_a_panel_holds_what_it_says(folder: Path, tmp_path: Path) -> None:
    runner = build(folder, tmp_path, hook_config(folder))
    runner.train()
    state = torch.random.get_rng_state()
    panel = panel_of(runner)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(panel.rows) == RECONSTRUCTED + FEATURES
    assert panel.per_patch
    # images of the validation folder, as they are on disk
    files = sorted((folder / 'val').rglob('*.png'))
    disk = {path: np.asarray(Image.open(path)) / 255 for path in files}
    shown = panel.rows['input'].permute(0, 2, 3, 1).numpy()
    found = [
        next(path for path in files if np.abs(disk[path] - image).max() < 1e-3)
        for image in shown
    ]
    assert len(set(found)) == 3
    # half of the 16 patches are grey, and only there the reconstruction may differ
    blocks = panel.rows['masked'].unfold(2, 8, 8).unfold(3, 8, 8)
    grey = (blocks == 0.55).all(-1).all(-1).all(1)
    assert grey.flatten(1).sum(1).tolist() == [8, 8, 8]
    change = (panel.rows['recon-\nstruction'] - panel.rows['input']).abs()
    change = change.unfold(2, 8, 8).unfold(3, 8, 8).amax((1, 4, 5))
    assert (change[~grey] < 1e-3).all()
    assert (change[grey] > 0.05).any()
    assert all(panel.rows[name].shape == (3, 3, 4, 4) for name in FEATURES)
    # always the same images, masks and colours
    again = panel_of(runner)
    for name, picture in panel.rows.items():
        assert torch.equal(again.rows[name], picture)


def test_the_file_is_the_panel(folder: Path, tmp_path: Path, monkeypatch) -> None:
    drawn = []

    def render(panel: Panel, title: str) -> np.ndarray:
        drawn.append(title)
        return np.full((4, 6, 3), (10, 20, 30), np.uint8)

    monkeypatch.setattr(panel_hook, 'render_panel', render)
    runner = build(folder, tmp_path, hook_config(folder))
    runner.train()
    assert drawn == ['Epoch 1', 'Epoch 2']
    file = Path(runner.log_dir, 'vis_data', 'vis_image', 'panel_2.png')
    with Image.open(file) as picture:
        assert picture.size == (6, 4)
        assert picture.getpixel((0, 0)) == (10, 20, 30)


def test_mimhd_draws_its_own_views(folder: Path, tmp_path: Path) -> None:
    runner = mimhd_run(folder, tmp_path, hook_config(folder, masked=False))
    runner.train()
    panel = panel_of(runner)
    names = ['student\nfeatures', 'teacher\nvalues']
    assert list(panel.rows) == RECONSTRUCTED + names
    assert torch.equal(panel.rows['masked'], panel_of(runner).rows['masked'])


def test_the_teacher_may_be_left_out_and_a_decoder_missing(
    folder: Path, tmp_path: Path
) -> None:
    settings = training_config(folder, tmp_path, [hook_config(folder, teacher=False)])
    settings['model']['head']['weights'] = dict(token=1.0)
    runner = build(folder, tmp_path, *settings['custom_hooks'], model=settings['model'])
    runner.train()
    assert list(panel_of(runner).rows) == ['input', 'masked', FEATURES[0]]
    # masks of samples, where nothing is decoded
    grey = (panel_of(runner).rows['masked'] == 0.55).all(1).float().mean((1, 2))
    assert grey.tolist() == [0.5] * 3


def test_a_cached_teacher_answers_for_images_it_does_not_know(
    folder: Path, tmp_path: Path
) -> None:
    model = training_config(folder, tmp_path, [])['model']
    plain = build(folder, tmp_path / 'plain', hook_config(folder), model=model)
    plain.train()
    model['target_generator'] = dict(
        type='medic_mm.CachedTeacher',
        teacher=model['target_generator'],
        cache_dir=str(tmp_path / 'cache'),
        dtype='float32',
    )
    loader = plain.cfg.train_dataloader
    loader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='medic_mm.FixedView', num_views=1, seed=0, transforms=[]),
        MASK,
        dict(type='PackInputs', meta_keys=('sample_idx', 'view')),
    ]
    runner = build(
        folder,
        tmp_path / 'cached',
        hook_config(folder),
        dict(type='medic_mm.TeacherCacheHook'),
        model=model,
        train_dataloader=loader,
    )
    runner.train()
    assert pictures(runner) == ['panel_1.png', 'panel_2.png']
    name = 'teacher\nfeatures'
    assert torch.equal(panel_of(runner).rows[name], panel_of(plain).rows[name])


def test_other_processes_draw_nothing(folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(panel_hook, 'is_main_process', lambda: False)
    runner = build(folder, tmp_path, hook_config(folder))
    runner.train()
    assert runner.epoch == 2
    assert pictures(runner) == []


def test_what_cannot_be_drawn_fails_before_the_first_step(
    folder: Path, tmp_path: Path
) -> None:
    runner = build(folder, tmp_path / 'a', hook_config(folder, masked=False))
    with pytest.raises(ValueError, match='images of PanelHook have no masks'):
        runner.train()
    hook = {**hook_config(folder), 'num_images': 16}
    many = build(folder, tmp_path / 'b', hook)
    with pytest.raises(ValueError, match='has 15: use fewer'):
        many.train()
    assert (runner.iter, many.iter) == (0, 0)


@pytest.mark.parametrize('name', ['interval', 'num_images'])
def test_bad_settings(name: str) -> None:
    with pytest.raises(ValueError, match=f'{name}=0 of PanelHook must be'):
        PanelHook({}, **{name: 0})


def test_a_resumed_run_goes_on(folder: Path, tmp_path: Path) -> None:
    hook, saving = hook_config(folder), dict(default_hooks={})
    short = dict(by_epoch=True, max_epochs=1)
    build(folder, tmp_path / 'part', hook, train_cfg=short, **saving).train()
    going_on = dict(resume=True, load_from=str(tmp_path / 'part' / 'epoch_1.pth'))
    second = build(folder, tmp_path / 'rest', hook, **going_on)

    class Seen(Hook):
        epochs: list[int] = []

        def before_train_epoch(self, runner: Runner) -> None:
            self.epochs.append(runner.epoch)

    second.register_hook(Seen())
    second.train()
    assert Seen.epochs == [1]
    assert pictures(second) == ['panel_2.png']
