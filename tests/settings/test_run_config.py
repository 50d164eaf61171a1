from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_runs import mae_config, write_config

from medic_mm.cli.main import sentences_for_users
from medic_mm.errors import UserError
from medic_mm.settings import launch, run_config
from medic_mm.settings.launch import join_process_group
from medic_mm.settings.run_config import (
    fill_dataloaders,
    load_config,
    set_work_dir,
    tool_command,
)


@pytest.mark.parametrize(
    'given, accelerator, arguments, expected',
    [
        ({}, False, {}, (False, False)),
        ({}, True, {}, (True, False)),
        ({'num_workers': 2}, True, {}, (True, True)),
        ({'num_workers': 2}, True, {'pin_memory': False}, (False, True)),
        ({'num_workers': 2}, True, {'persistent_workers': False}, (True, False)),
        ({'num_workers': 2, 'persistent_workers': False}, True, {}, (True, False)),
        ({'num_workers': 0, 'persistent_workers': True}, True, {}, (True, False)),
        ({'num_workers': 0, 'prefetch_factor': 2}, True, {}, (True, False)),
        ({'num_workers': 2, 'pin_memory': False}, True, {}, (False, True)),
    ],
)
def test_dataloader_defaults(
    monkeypatch: pytest.MonkeyPatch,
    given: dict,
    accelerator: bool,
    arguments: dict,
    expected: tuple[bool, bool],
) -> None:
    monkeypatch.setattr(run_config, 'has_accelerator', lambda: accelerator)
    cfg = Config(dict(train_dataloader=given, default_scope='mmpretrain'))
    fill_dataloaders(cfg, ['train_dataloader', 'val_dataloader'], **arguments)
    loader = cfg.train_dataloader
    assert (loader.pin_memory, loader.persistent_workers) == expected
    # torch accepts the combination
    settings = {k: v for k, v in loader.items() if k != 'collate_fn'}
    torch.utils.data.DataLoader([1, 2], **settings)
    assert 'val_dataloader' not in cfg


@pytest.mark.parametrize(
    'scope, given, expected',
    [
        ('mmpretrain', {}, dict(type='default_collate')),
        ('mmpretrain', {'collate_fn': dict(type='other')}, dict(type='other')),
        # its preprocessor wants lists, the Runner's own default
        ('mmseg', {}, None),
    ],
)
def test_collate_function(scope: str, given: dict, expected: dict | None) -> None:
    cfg = Config(dict(test_dataloader=given, default_scope=scope))
    fill_dataloaders(cfg, ['test_dataloader'])
    assert cfg.test_dataloader.get('collate_fn') == expected


@pytest.mark.parametrize(
    'argument, in_config, expected',
    [('a', 'b', 'a'), (None, 'b', 'b'), (None, None, 'work_dirs/some_name')],
)
def test_work_dir(argument: str | None, in_config: str | None, expected: str) -> None:
    cfg = Config({} if in_config is None else dict(work_dir=in_config))
    set_work_dir(cfg, argument, 'configs/some_name.py')
    assert cfg.work_dir == expected


def test_options_are_merged_or_refused(tmp_path: Path) -> None:
    path = write_config(mae_config(tmp_path), tmp_path / 'mae.py')
    cfg = load_config(path, {'model.head.norm_pix': True, 'param_scheduler.0.end': 2})
    assert cfg.model.head.norm_pix is True
    assert cfg.param_scheduler[0].end == 2
    with pytest.raises(UserError, match="did you mean 'norm_pix'"):
        load_config(path, {'model.head.norm_pixels': True})
    with pytest.raises(UserError, match=r'absent\.py.* does not exist'):
        load_config(tmp_path / 'absent.py')


def test_command_is_quoted_and_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PATH', os.path.dirname(sys.executable))
    for tools in ('tools', 'tools/train.py'):
        command = tool_command(Path(tools), 'knn', 'a b.py', tmp_path / 'c' / 'd.pth')
        assert shlex.split(command) == ['python', 'tools/knn.py', 'a b.py', 'c/d.pth']
    # where `python` is another one, the interpreter is named in full
    monkeypatch.setenv('PATH', '/nowhere')
    assert tool_command(Path(), 'knn') == f'{sys.executable} knn.py'


def test_command_of_the_installed_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / 'medic-mm'
    program.touch(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert tool_command(program, 'knn', 'a.py') == 'medic-mm knn a.py'
    monkeypatch.setenv('PATH', '/nowhere')
    assert tool_command(program, 'knn', 'a.py') == f'{program} knn a.py'


def test_wrong_use_ends_in_a_sentence(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    with pytest.raises(SystemExit) as exit_info, sentences_for_users():
        raise UserError('this is wrong')
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == 'error: this is wrong\n'
    # torchrun shows what was raised
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', '1')
    with pytest.raises(UserError), sentences_for_users():
        raise UserError('this is wrong')


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), sentences_for_users():
        raise ZeroDivisionError


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_launcher_that_cannot_work(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip('checks what happens without an accelerator')
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UserError, match=r'tools/dist_train\.sh'):
        join_process_group(Config(), launcher)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('medic_mm.settings.launch.has_accelerator', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert join_process_group(Config(), 'pytorch') is False
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(UserError, match=r'4 processes .* has 2 GPUs'):
        join_process_group(Config(), 'pytorch')


def test_launchers_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match="launcher 'slrum' is unknown: choose from"):
        join_process_group(Config(), 'slrum')
    monkeypatch.setattr(launch, 'has_accelerator', lambda: True)
    for launcher, word in (('slurm', 'SLURM_PROCID'), ('mpi', 'mpirun')):
        with pytest.raises(UserError, match=word):
            join_process_group(Config(), launcher)


@pytest.mark.parametrize('below', ['', 'a', 'a/b'])
def test_work_dir_that_is_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(UserError, match=f'--work-dir .*: {file} is not a folder'):
        set_work_dir(Config(), str(file / below), 'c.py')
    with pytest.raises(UserError, match='--work-dir is empty'):
        set_work_dir(Config(), ' ', 'c.py')
    set_work_dir(Config(), str(tmp_path / 'new' / below), 'c.py')


def test_whole_config_is_checked(tmp_path: Path) -> None:
    """Wrong keys of the file, each named, with nothing built."""
    cfg = mae_config(tmp_path / 'absent')
    cfg.train_dataloadr = dict(batch_size=2)
    cfg.model.backbone.archh = 'base'
    cfg.default_hooks.checkpoint = dict(
        type='medic_mm.AtomicCheckpointHook', intervall=1
    )
    cfg.my_own = dict(anything=1)
    cfg.model.head.loss.type = 'PixelReconstructionLos'
    path = write_config(cfg, tmp_path / 'config.py')
    gradients = dict(max_norm=float('inf'), norm_type=float('inf'))
    options = {
        'model.backbone.mask_ratio': float('nan'),
        'optim_wrapper.clip_grad': gradients,
    }
    with pytest.raises(UserError) as error:
        load_config(path, options)
    assert sorted(str(error.value).splitlines()) == sorted(
        [
            "the config has no setting 'train_dataloadr': did you mean "
            "'train_dataloader'?",
            "model.backbone has no setting 'archh': did you mean 'arch'?",
            "default_hooks.checkpoint has no setting 'intervall': did you mean "
            "'interval'?",
            "model.head.loss.type is 'PixelReconstructionLos', which does not exist: "
            "did you mean 'PixelReconstructionLoss'?",
            'model.backbone.mask_ratio is nan: it must be a finite number',
            'optim_wrapper.clip_grad.max_norm is inf: it must be a finite number',
        ]
    )


def test_values_that_name_their_key(root: Path) -> None:
    path = root / 'configs/medic/vitb_300e.py'
    for options, message in (
        (
            {'model.head.weights.cls': [0, 3]},
            r'model.head.weights.cls is \[0, 3\], .* with a point, 0\.3',
        ),
        ({'train_dataloader.dataset.data_root': ['a', 'b']}, 'in quotes stays one'),
        ({'optim_wrapper.optimizer.lr': 'nan'}, 'optim_wrapper.optimizer.lr'),
    ):
        with pytest.raises(UserError, match=message):
            load_config(path, options)
