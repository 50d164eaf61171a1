"""Running a config that was written for GPUs where there is no accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import (
    is_cuda_available,
    is_mlu_available,
    is_musa_available,
    is_npu_available,
)
from mmengine.registry import OPTIMIZERS

from medic_mm.helpers import type_name

_AMP_ONLY = ('dtype', 'loss_scale', 'use_fsdp')


def has_accelerator() -> bool:
    """Whether there is a device that mmengine trains on in mixed precision."""
    return (
        is_cuda_available()
        or is_npu_available()
        or is_mlu_available()
        or is_musa_available()
    )


def adapt_to_cpu(cfg: Config, distributed: bool) -> list[str]:
    """Replace, in place, the settings of ``cfg`` that need an accelerator.

    Args:
        cfg: The config of a run.
        distributed: Several processes train together.

    Returns:
        One sentence for each replacement, for the log.
    """
    notices = [*_plain_precision(cfg), *_plain_optimizers(cfg), *_plain_memory(cfg)]
    if distributed:
        notices += _distribute_on_cpu(cfg)
    return [f'No accelerator: {notice}' for notice in notices]


def _optim_wrappers(cfg: Config) -> Iterator[dict]:
    """The optimizer wrapper, or all of them where a model has several."""
    top = cfg.get('optim_wrapper')
    if not isinstance(top, dict):
        return
    yield top
    yield from (v for v in top.values() if isinstance(v, dict) and 'optimizer' in v)


def _plain_precision(cfg: Config) -> Iterator[str]:
    for wrapper in _optim_wrappers(cfg):
        if type_name(wrapper) != 'AmpOptimWrapper':
            continue
        wrapper['type'] = 'OptimWrapper'
        given = {key: wrapper.pop(key) for key in _AMP_ONLY if key in wrapper}
        shown = ', '.join(f'{key}={value!r}' for key, value in given.items())
        yield (
            f'optim_wrapper AmpOptimWrapper({shown}) is replaced by OptimWrapper, '
            'training runs in float32.'
        )


def _plain_optimizers(cfg: Config) -> Iterator[str]:
    for wrapper in _optim_wrappers(cfg):
        optimizer = wrapper.get('optimizer')
        if not isinstance(optimizer, dict) or not optimizer.get('fused'):
            continue
        if not _can_fuse_on_cpu(optimizer['type']):
            optimizer.pop('fused')
            yield f'fused=True of {optimizer["type"]} is dropped, it needs a GPU.'


def _can_fuse_on_cpu(type_: Any) -> bool:
    optimizer = OPTIMIZERS.get(type_) if isinstance(type_, str) else type_
    try:
        optimizer([torch.zeros(1, requires_grad=True)], lr=0.1, fused=True)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def _plain_memory(cfg: Config) -> Iterator[str]:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if isinstance(loader, dict) and loader.get('pin_memory'):
            loader['pin_memory'] = False
            yield f'{name}.pin_memory is switched off.'
    env = cfg.get('env_cfg') or {}
    if env.get('cudnn_benchmark'):
        env['cudnn_benchmark'] = False
        yield 'env_cfg.cudnn_benchmark is switched off.'


def _distribute_on_cpu(cfg: Config) -> Iterator[str]:
    env = cfg.setdefault('env_cfg', {})
    dist = env.setdefault('dist_cfg', {})
    backend = dist.get('backend', 'nccl')
    dist['backend'] = 'gloo'
    yield f'env_cfg.dist_cfg.backend {backend} is replaced by gloo.'
    # without this the host's default names a CUDA device
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    yield 'model_wrapper_cfg.device_ids is set to None, each process computes on CPU.'
    if cfg.get('sync_bn'):
        cfg.sync_bn = None
        yield 'sync_bn is dropped, statistics are those of each process.'
    if _replace_sync_bn(cfg.get('model')):
        yield 'SyncBN is replaced by BN, statistics are those of each process.'


def _replace_sync_bn(node: Any) -> int:
    """Replace SyncBN by BN wherever it stands below ``node``; how often it did."""
    if isinstance(node, list | tuple):
        return sum(_replace_sync_bn(value) for value in node)
    if not isinstance(node, dict):
        return 0
    count = sum(_replace_sync_bn(value) for value in node.values())
    if node.get('type') == 'SyncBN':
        node['type'] = 'BN'
        count += 1
    return count
