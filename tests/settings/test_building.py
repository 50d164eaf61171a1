"""Errors while components are built name their place in the config."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from tiny_runs import mae_config, write_config, write_images

from medic_mm.cli.main import sentences_for_users
from medic_mm.cli.train import run_training
from medic_mm.errors import UserError


def train(tmp_path: Path, change) -> None:
    cfg = mae_config(write_images(tmp_path / 'images'))
    cfg.work_dir = str(tmp_path / 'work')
    change(cfg)
    run_training(write_config(cfg, tmp_path / 'config.py'))


def set_(**values):
    def change(cfg: Config) -> None:
        cfg.merge_from_dict({key.replace('__', '.'): v for key, v in values.items()})

    return change


@pytest.mark.parametrize(
    'change, line',
    [
        (set_(model__backbone__arch='huger'), 'model.backbone (MAEViT)'),
        (set_(model__backbone__patch_size='a'), None),
        (set_(model__head__loss__criterion='L3'), 'model.head.loss (Pix'),
        (set_(model__head__loss=5), 'model.head'),
        (set_(optim_wrapper__optimizer__betas=5), 'optim_wrapper.optimizer (AdamW)'),
        (
            set_(train_dataloader__dataset__data_prefix=5),
            'train_dataloader.dataset (CustomDataset)',
        ),
        (set_(train_dataloader__sampler__shuffl=1), None),
        (set_(param_scheduler=[dict(type='StepLR')]), 'param_scheduler.0 (StepLR)'),
        (set_(custom_hooks=[dict(type='EMAHook', b=1)]), 'custom_hooks.0 (EMAHook)'),
    ],
)
def test_foreign_errors(tmp_path, change, line, capfd) -> None:
    with pytest.raises(Exception) as error:
        train(tmp_path, change)
    shown = capfd.readouterr().err
    if line is None:
        assert isinstance(error.value, UserError)
    else:
        assert not isinstance(error.value, UserError)
        assert f'while building {line}' in shown
        assert shown.count('while building') == 1


def test_a_sentence_gets_its_place_once(tmp_path, capsys) -> None:
    head = dict(type='medic_mm.ClsAlignmentLoss', tau=0)
    change = set_(model__head__loss__type='medic_mm.ClsAlignmentLoss')

    def replace(cfg: Config) -> None:
        change(cfg)
        cfg.model.head.loss = head

    with pytest.raises(SystemExit), sentences_for_users():
        train(tmp_path, replace)
    shown = capsys.readouterr().err
    assert shown.startswith('error: model.head.loss (medic_mm.ClsAlignmentLoss): ')
    assert shown.count('model.head.loss') == 1
    assert 'tau=0' in shown


def test_other_errors_are_left_alone(capsys) -> None:
    with pytest.raises(KeyError), sentences_for_users():
        raise KeyError('x')
    assert capsys.readouterr().err == ''
