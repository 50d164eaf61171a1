"""Schedules follow the length of a run that options change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from tiny_runs import mae_config, write_config

from medic_mm.settings.run_config import read_config

WARM = dict(type='LinearLR', start_factor=0.01, begin=0, end=10)
COSINE = dict(type='CosineAnnealingLR', eta_min=1e-5, begin=10, end=300)


def changed(tmp_path: Path, schedulers: list | dict, options: dict, length=300):
    cfg = mae_config(tmp_path)
    cfg.train_cfg.max_epochs = length
    cfg.param_scheduler = schedulers
    path = write_config(cfg, tmp_path / 'config.py')
    cfg, notices = read_config(path, options)
    found = cfg.get('param_scheduler')
    listed = [dict(one) for one in found] if isinstance(found, list) else found
    return listed, ' '.join(notices)


def test_warm_up_keeps_its_length_and_the_cosine_ends_with_the_run(tmp_path) -> None:
    found, log = changed(tmp_path, [WARM, COSINE], {'train_cfg.max_epochs': 100})
    assert found == [WARM, {**COSINE, 'end': 100}]
    assert log == (
        'train_cfg.max_epochs is 100 instead of 300: param_scheduler.0 (LinearLR) '
        'keeps 0 to 10; param_scheduler.1 (CosineAnnealingLR) ends at 100'
    )


def test_longer(tmp_path) -> None:
    cosine = {**COSINE, 'T_max': 290}
    found, _ = changed(tmp_path, [WARM, cosine], {'train_cfg': {'max_epochs': 400}})
    assert found == [WARM, {**cosine, 'end': 400, 'T_max': 390}]


@pytest.mark.parametrize('length', [10, 4])
def test_warm_up_is_left_out_where_the_run_is_not_longer(tmp_path, length) -> None:
    found, log = changed(tmp_path, [WARM, COSINE], {'train_cfg.max_epochs': length})
    assert found == [{**COSINE, 'begin': 0, 'end': length}]
    assert 'param_scheduler.0 (LinearLR) from 0 to 10 is left out' in log
    assert f'begins at 0 and ends at {length}' in log


def test_length_without_an_end(tmp_path) -> None:
    cosine = dict(type='CosineAnnealingLR', T_max=300)
    for given, expected in (([cosine], [{**cosine, 'T_max': 7}]), (cosine, None)):
        found, _ = changed(tmp_path, given, {'train_cfg.max_epochs': 7})
        assert (dict(found) if expected is None else found) == (
            expected or {**cosine, 'T_max': 7}
        )


def test_what_the_options_set_stays(tmp_path) -> None:
    options = {'train_cfg.max_epochs': 100, 'param_scheduler.1.end': 80}
    found, _ = changed(tmp_path, [WARM, COSINE], options)
    assert found == [WARM, {**COSINE, 'end': 80}]
    own = [dict(type='ConstantLR', factor=1.0, end=300)]
    options = {'train_cfg.max_epochs': 100, 'param_scheduler': own}
    assert changed(tmp_path, [WARM, COSINE], options)[0] == own


def test_another_unit_stays_and_is_named(tmp_path) -> None:
    poly = dict(type='PolyLR', by_epoch=False, begin=0, end=300)
    found, log = changed(tmp_path, [poly], {'train_cfg.max_epochs': 100})
    assert found == [poly]
    assert 'counts otherwise and stays as it is' in log


def test_same_length_and_other_options_change_nothing(tmp_path) -> None:
    for options in ({'train_cfg.max_epochs': 300}, {'work_dir': 'x'}):
        assert changed(tmp_path, [WARM, COSINE], options) == ([WARM, COSINE], '')


def test_an_end_after_the_run_is_said(tmp_path) -> None:
    _, log = changed(tmp_path, [WARM, COSINE], {}, length=100)
    assert 'param_scheduler.1 (CosineAnnealingLR) ends at 300, but' in log


def test_iterations(tmp_path, root) -> None:
    path = next((root / 'configs/benchmarks/segmentation').glob('*160k_ade20k*'))
    cfg, notices = read_config(path, {'train_cfg.max_iters': 1000})
    last = cfg.param_scheduler[-1]
    assert (last.begin, last.end) == (0, 1000)
    assert len(cfg.param_scheduler) == 1
    assert 'train_cfg.max_iters is 1000 instead of 160000' in notices[0]


def rates(cfg: Config, epochs: int) -> list[float]:
    wrapper = OptimWrapper(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0))
    for scheduler in cfg.param_scheduler:
        scheduler.pop('convert_to_iter_based')
    built = [
        PARAM_SCHEDULERS.build(one, default_args=dict(optimizer=wrapper))
        for one in cfg.param_scheduler
    ]
    found = []
    for _ in range(epochs):
        found.append(wrapper.get_lr()['lr'][0])
        wrapper.optimizer.step()
        for scheduler in built:
            scheduler.step()
    return found


def test_rates_of_a_shipped_config(root: Path) -> None:
    """As those of a config that is written for the length."""
    path = root / 'configs/medic/vitb_300e.py'
    cfg, _ = read_config(path, {'train_cfg.max_epochs': 50})
    found = rates(cfg, 50)
    assert max(found) == pytest.approx(1.0)
    assert found.index(max(found)) == pytest.approx(10, abs=1)
    assert found[-1] < 0.01
