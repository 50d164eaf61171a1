"""The command-line tools, run as a user runs them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import mmengine
import pytest
import torch
from tiny_runs import classifier_config, mae_config, write_config, write_images

from medic_mm.cli.test import run_testing
from medic_mm.cli.train import run_training
from medic_mm.errors import FileError, UserError
from medic_mm.settings.device import has_accelerator

# plain gradient descent, so that rounding is not blown up by Adam's normalisation
SGD = [
    'optim_wrapper.optimizer._delete_=True',
    'optim_wrapper.optimizer.type=SGD',
    'optim_wrapper.optimizer.lr=0.1',
]


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images')


def call(root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    return subprocess.run(
        [str(word) for word in words],
        cwd=root,
        env={**environment, 'PYTHON': sys.executable},
        capture_output=True,
        text=True,
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.slow
@pytest.mark.skipif(has_accelerator(), reason='trains over gloo on CPU')
def test_two_processes_equal_one_and_the_next_command_works(
    root: Path, images: Path, tmp_path: Path
) -> None:
    cfg = classifier_config(images)
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    config = write_config(cfg, tmp_path / 'tiny classifier.py')
    two, one = tmp_path / 'two processes', tmp_path / 'one'
    options = ['--cfg-options', *SGD]
    done = call(
        root,
        *('bash', 'tools/dist_train.sh', config, '2', '--work-dir', two),
        *options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('AmpOptimWrapper(dtype') == 1
    assert 'backend nccl is replaced by gloo' in done.stdout

    # the samplers of both deal out the same permutation, so batches of 4 are the same
    changes = dict(option.split('=') for option in SGD)
    changes.update({'train_dataloader.batch_size': 4, SGD[0].split('=')[0]: True})
    changes['optim_wrapper.optimizer.lr'] = 0.1
    run_training(config, work_dir=str(one), options=changes)
    first = torch.load(two / 'epoch_1.pth', weights_only=False)
    assert (first['meta']['epoch'], first['meta']['iter']) == (1, 2)
    single = weights(one / 'epoch_1.pth')
    for name, value in first['state_dict'].items():
        torch.testing.assert_close(value, single[name], rtol=0, atol=1e-6)

    lines = done.stdout.strip().splitlines()
    command = lines[-1].partition('Next: ')[2]
    words = shlex.split(command)
    assert words[1:] == [
        'tools/test.py',
        str(two / 'tiny classifier.py'),
        str(two / 'epoch_1.pth'),
    ]
    done = call(root, *words, '--work-dir', tmp_path / 'test', '--out', one / 'a.json')
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = run_testing(config, one / 'epoch_1.pth', work_dir=str(tmp_path / 'again'))
    assert json.loads((one / 'a.json').read_text()) == pytest.approx(metrics)


def test_wrong_option_ends_in_one_sentence(
    root: Path, images: Path, tmp_path: Path
) -> None:
    config = write_config(mae_config(images), tmp_path / 'mae.py')
    done = call(
        root,
        *(sys.executable, 'tools/train.py', config, '--work-dir', tmp_path / 'out'),
        *('--cfg-options', 'model.head.norm_pixels=True'),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: model.head has no setting 'norm_pixels': did you mean 'norm_pix'?"
    )
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_next_command_for_features(root: Path, images: Path, tmp_path: Path) -> None:
    cfg = mae_config(images)
    loader = cfg.train_dataloader.to_dict()
    loader['sampler']['shuffle'] = False
    cfg.knn_train_dataloader = cfg.knn_test_dataloader = loader
    config = write_config(cfg, tmp_path / 'mae.py')
    runner = run_training(config, work_dir=str(tmp_path / 'out'), tools=Path('tools'))
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    words = shlex.split(log.strip().splitlines()[-1].partition('Next: ')[2])
    done = call(root, *words, '--k', '1')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '8 train and 8 test images, 2 classes' in done.stdout


@pytest.fixture(scope='module')
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with ``classifier.py`` and ``epoch_1.pth``."""
    folder = tmp_path_factory.mktemp('trained')
    cfg = classifier_config(images)
    config = write_config(cfg, tmp_path_factory.mktemp('config') / 'classifier.py')
    run_training(config, work_dir=str(folder))
    return folder


def test_predictions_are_written(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / 'folder' / 'predictions.pkl'
    metrics = run_testing(
        trained / 'classifier.py',
        trained / 'epoch_1.pth',
        work_dir=str(tmp_path),
        out=out,
        options={'test_dataloader.batch_size': 3},
    )
    predictions = mmengine.load(out)
    right = [p['pred_label'].item() == p['gt_label'].item() for p in predictions]
    assert len(right) == 8
    assert metrics['accuracy/top1'] == pytest.approx(100 * sum(right) / 8)


def test_checkpoint_without_all_weights(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False)
    state = checkpoint['state_dict']
    names = [name for name in state if name.startswith('head.')]
    for name in names:
        del state[name]
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    message = rf'part\.pth does not fit: missing {", ".join(names)};'
    with pytest.raises(FileError, match=message):
        run_testing(
            trained / 'classifier.py', tmp_path / 'part.pth', work_dir=str(tmp_path)
        )


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(checkpoint='absent.pth'), "'absent.pth' does not exist"),
        (dict(config='absent.py'), "'absent.py' does not exist"),
        (dict(out='a.txt'), r'--out a\.txt: the suffix says what is written'),
        (dict(options={'tst_cfg': 1}), "did you mean 'test_cfg'"),
    ],
)
def test_wrong_calls_of_test(trained: Path, change: dict, message: str) -> None:
    given = dict(config=trained / 'classifier.py', checkpoint=trained / 'epoch_1.pth')
    with pytest.raises(UserError, match=message):
        run_testing(**{**given, **change})


def test_config_of_pretraining_points_to_knn(images: Path, tmp_path: Path) -> None:
    config = write_config(mae_config(images), tmp_path / 'mae.py')
    (tmp_path / 'a.pth').touch()
    with pytest.raises(UserError, match=r'no test loop .* tools/knn\.py'):
        run_testing(config, tmp_path / 'a.pth')
