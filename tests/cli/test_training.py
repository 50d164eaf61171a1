from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tiny_runs import classifier_config, mae_config, write_config, write_images

from medic_mm.cli.train import run_training
from medic_mm.errors import UserError
from medic_mm.settings.device import has_accelerator


class Stop(Exception):
    pass


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Ends a run in the middle, as a kill would."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Runner, *args: object, **_: object) -> None:
        if runner.iter == self.iteration:
            raise Stop


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / 'images')


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def log_text(runner: Runner) -> str:
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


@pytest.mark.parametrize('moved', [False, True], ids=['in place', 'moved'])
def test_resumed_run_equals_an_uninterrupted_one(
    images: Path, tmp_path: Path, moved: bool
) -> None:
    config = write_config(classifier_config(images, epochs=3), tmp_path / 'whole.py')
    run_training(config, work_dir=str(tmp_path / 'whole'))
    initial = weights(tmp_path / 'whole' / 'epoch_1.pth')
    expected = weights(tmp_path / 'whole' / 'epoch_3.pth')
    assert not torch.equal(
        initial['head.layers.head.bias'], expected['head.layers.head.bias']
    )

    cfg = classifier_config(images, epochs=3)
    cfg.custom_hooks = [dict(type='mmengine.StopAt', iteration=6)]
    interrupted = write_config(cfg, tmp_path / 'interrupted.py')
    folder = tmp_path / 'part'
    with pytest.raises(Stop):
        run_training(interrupted, work_dir=str(folder), resume='auto')
    assert sorted(path.name for path in folder.glob('*.pth')) == ['epoch_1.pth']

    if moved:  # last_checkpoint names the old place
        folder = Path(shutil.move(folder, tmp_path / 'elsewhere'))
    config = config.rename(tmp_path / 'resumed.py')
    runner = run_training(config, work_dir=str(folder), resume='auto')
    assert 'resumed epoch: 1, iter: 4' in log_text(runner)
    assert (runner.epoch, runner.iter) == (3, 12)
    assert_same(weights(folder / 'epoch_3.pth'), expected)
    if not moved:
        path = str(folder / 'epoch_2.pth')
        config = config.rename(tmp_path / 'from_path.py')
        run_training(config, work_dir=str(tmp_path / 'third'), resume=path)
        assert_same(weights(tmp_path / 'third' / 'epoch_3.pth'), expected)


def test_resume_that_is_impossible(images: Path, tmp_path: Path) -> None:
    config = write_config(classifier_config(images), tmp_path / 'config.py')
    with pytest.raises(UserError, match=r"--resume: checkpoint 'a\.pth' does not"):
        run_training(config, resume='a.pth')
    (tmp_path / 'last_checkpoint').write_text('/gone/epoch_1.pth')
    with pytest.raises(UserError, match=r'/gone/epoch_1\.pth, which does not exist'):
        run_training(config, work_dir=str(tmp_path), resume='auto')


@pytest.mark.skipif(has_accelerator(), reason='checks what a CPU does')
def test_config_for_a_gpu_trains_on_a_cpu_as_a_plain_one(
    images: Path, tmp_path: Path
) -> None:
    plain = classifier_config(images)
    plain.optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=0.1))
    gpu = classifier_config(images)
    gpu.optim_wrapper = dict(
        plain.optim_wrapper, type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0
    )
    gpu.train_dataloader.pin_memory = True
    gpu.env_cfg = dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl'))
    trained = {}
    for name, cfg in (('plain', plain), ('gpu', gpu)):
        config = write_config(cfg, tmp_path / f'{name}.py')
        trained[name] = run_training(config, work_dir=str(tmp_path / name))
    assert_same(
        weights(tmp_path / 'gpu' / 'epoch_1.pth'),
        weights(tmp_path / 'plain' / 'epoch_1.pth'),
    )
    assert 'No accelerator' not in log_text(trained['plain'])
    lines = log_text(trained['gpu']).splitlines()
    notices = [line for line in lines if 'No accelerator' in line]
    assert len(notices) == 3
    assert 'AmpOptimWrapper' in notices[0]


@pytest.mark.parametrize(
    'base, accumulated, expected', [(2, 1, 1e-3), (8, 1, 2.5e-4), (8, 2, 5e-4)]
)
def test_learning_rate_follows_the_images_of_a_step(
    images: Path, tmp_path: Path, base: int, accumulated: int, expected: float
) -> None:
    cfg = mae_config(images)
    cfg.auto_scale_lr = dict(base_batch_size=base)
    cfg.optim_wrapper.accumulative_counts = accumulated
    config = write_config(cfg, tmp_path / f'config_{base}_{accumulated}.py')
    work_dir = tmp_path / 'out'
    runner = run_training(config, work_dir=str(work_dir), auto_scale_lr=True, amp=True)
    assert runner.optim_wrapper.param_groups[0]['initial_lr'] == pytest.approx(expected)
    # the saved config can be run again
    saved = (work_dir / config.name).read_text()
    assert f'base_batch_size={base}' in saved


def test_learning_rate_scaling_without_a_base(images: Path, tmp_path: Path) -> None:
    config = write_config(mae_config(images), tmp_path / 'config.py')
    with pytest.raises(UserError, match='base_batch_size'):
        run_training(config, work_dir=str(tmp_path / 'out'), auto_scale_lr=True)


@pytest.mark.parametrize('kind', ['missing', 'empty'])
def test_no_images(tmp_path: Path, kind: str) -> None:
    images = tmp_path / kind
    if kind == 'empty':
        (images / 'class').mkdir(parents=True)
    config = write_config(classifier_config(images), tmp_path / f'{kind}.py')
    with pytest.raises((FileNotFoundError, RuntimeError), match=str(images)):
        run_training(config, work_dir=str(tmp_path / 'out'))
    assert not list((tmp_path / 'out').glob('*.pth'))


def test_config_without_training(images: Path, tmp_path: Path) -> None:
    cfg = classifier_config(images)
    cfg.train_cfg = None
    config = write_config(cfg, tmp_path / 'config.py')
    with pytest.raises(UserError, match='no training loop'):
        run_training(config, work_dir=str(tmp_path / 'out'))


def test_fewer_images_than_a_batch(images: Path, tmp_path: Path) -> None:
    cfg = classifier_config(images)
    cfg.train_dataloader.update(batch_size=256, drop_last=True)
    config = write_config(cfg, tmp_path / 'few.py')
    with pytest.raises(UserError, match='8 images, fewer than its batch_size=256, and'):
        run_training(config, work_dir=str(tmp_path / 'out'))


def test_a_run_counts_what_it_skips_and_stops(images: Path, tmp_path: Path) -> None:
    """Through the whole runner: one broken image of nine goes on, five do not."""
    cfg = classifier_config(images)
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='medic_mm.ImageFolder',
            data_root=str(images),
            with_label=True,
            pipeline=[
                dict(type='medic_mm.LoadReadableImage'),
                dict(type='PackInputs'),
            ],
        ),
    )
    cfg.train_dataloader.num_workers = 1
    cfg.custom_hooks = [dict(type='medic_mm.SkippedImagesHook', max_unreadable=0.2)]
    (images / 'dark' / '9.png').write_bytes(b'')
    config = write_config(cfg, tmp_path / 'broken.py')
    runner = run_training(config, work_dir=str(tmp_path / 'one'))
    assert '1 of 9 training images were unreadable and skipped' in log_text(runner)
    listed = (tmp_path / 'one' / 'left_out_images.txt').read_text()
    assert listed == f'empty file\t{images}/dark/9.png\n'
    for index in range(4):
        (images / 'light' / f'{index}.png').write_bytes(b'torn')
    with pytest.raises(UserError, match='5 of the 9 training images read so far'):
        run_training(config, work_dir=str(tmp_path / 'five'))
    assert not list((tmp_path / 'five').glob('*.pth'))
