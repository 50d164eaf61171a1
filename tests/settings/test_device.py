from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.device import get_device

from medic_mm.settings import device
from medic_mm.settings.device import adapt_to_cpu

pytestmark = pytest.mark.skipif(
    get_device() != 'cpu', reason='checks what happens without an accelerator'
)


def gpu_config() -> Config:
    return Config(
        dict(
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
                heads=[dict(norm_cfg=dict(type='SyncBN')), dict(type='Other')],
            ),
            optim_wrapper=dict(
                type='AmpOptimWrapper',
                dtype='bfloat16',
                loss_scale='dynamic',
                accumulative_counts=2,
                clip_grad=dict(max_norm=3.0),
                constructor='Some',
                paramwise_cfg=dict(norm_decay_mult=0.0),
                optimizer=dict(type='AdamW', lr=1e-3),
            ),
            train_dataloader=dict(pin_memory=True),
            val_dataloader=None,
            env_cfg=dict(
                cudnn_benchmark=True, dist_cfg=dict(backend='nccl', timeout=60)
            ),
        )
    )


def test_single_process() -> None:
    cfg = gpu_config()
    notices = adapt_to_cpu(cfg, distributed=False)
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        accumulative_counts=2,
        clip_grad=dict(max_norm=3.0),
        constructor='Some',
        paramwise_cfg=dict(norm_decay_mult=0.0),
        optimizer=dict(type='AdamW', lr=1e-3),
    )
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.env_cfg.cudnn_benchmark is False
    # the host itself turns SyncBN into BN in one process
    assert cfg.model.backbone.norm_cfg.type == 'SyncBN'
    assert 'model_wrapper_cfg' not in cfg
    assert [notice.split()[2] for notice in notices] == [
        'optim_wrapper',
        'train_dataloader.pin_memory',
        'env_cfg.cudnn_benchmark',
    ]
    assert "dtype='bfloat16', loss_scale='dynamic'" in notices[0]


def test_several_processes() -> None:
    cfg = gpu_config()
    cfg.sync_bn = 'torch'
    cfg.find_unused_parameters = True
    notices = adapt_to_cpu(cfg, distributed=True)
    assert cfg.env_cfg.dist_cfg == dict(backend='gloo', timeout=60)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    assert cfg.sync_bn is None
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    assert cfg.model.heads == [dict(norm_cfg=dict(type='BN')), dict(type='Other')]
    assert len(notices) == len(set(notices)) == 7


def test_own_wrapper_settings_are_kept() -> None:
    cfg = gpu_config()
    cfg.model_wrapper_cfg = dict(type='Other', static_graph=True, device_ids=[1])
    adapt_to_cpu(cfg, distributed=True)
    assert cfg.model_wrapper_cfg.type == 'Other'
    assert cfg.model_wrapper_cfg.static_graph is True
    assert cfg.model_wrapper_cfg.device_ids is None


def test_several_optimizers() -> None:
    wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    cfg = Config(
        dict(optim_wrapper=dict(constructor='Some', first=wrapper, second=wrapper))
    )
    assert len(adapt_to_cpu(cfg, distributed=False)) == 2
    assert (
        cfg.optim_wrapper.first.type == cfg.optim_wrapper.second.type == 'OptimWrapper'
    )


def test_config_for_a_cpu_is_left_alone() -> None:
    cfg = gpu_config()
    adapt_to_cpu(cfg, distributed=True)
    before = cfg.pretty_text
    # the backend and the wrapper are stated again, nothing else
    assert len(adapt_to_cpu(cfg, distributed=True)) == 2
    assert cfg.pretty_text == before


class NeedsGPU(torch.optim.SGD):
    def __init__(self, params: list, lr: float, fused: bool = False) -> None:
        if fused:
            raise RuntimeError('`fused=True` requires a GPU')
        super().__init__(params, lr)


def test_fused_optimizer_falls_back_only_where_it_must() -> None:
    cfg = gpu_config()
    cfg.optim_wrapper.optimizer = dict(type=NeedsGPU, lr=0.1, fused=True)
    notices = adapt_to_cpu(cfg, distributed=False)
    assert 'fused' not in cfg.optim_wrapper.optimizer
    assert sum('fused=True' in notice for notice in notices) == 1

    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0.1, fused=True)
    adapt_to_cpu(cfg, distributed=False)
    try:
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)], fused=True)
        possible = True
    except RuntimeError:
        possible = False
    assert ('fused' in cfg.optim_wrapper.optimizer) is possible


def test_no_accelerator_here() -> None:
    assert device.has_accelerator() is torch.cuda.is_available() is False
