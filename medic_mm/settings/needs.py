"""What a training needs of memory and disk, estimated before it starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.settings.files import existing_parent

if TYPE_CHECKING:
    from medic_mm.settings.readiness import Readiness

_GB = 1e9
# A larger model takes too long for a check.
_MOST_WEIGHTS = 700_000_000


def kept_bytes(model: nn.Module, data: Any, dtype: torch.dtype | None) -> int:
    """Bytes of distinct storages that the backward pass of a batch keeps.

    Args:
        model: The algorithm, on the CPU.
        data: A batch as the data loader gives it.
        dtype: Of autocast; None: without.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    data = model.data_preprocessor(data, True)
    with (
        torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        losses = model(**data, mode='loss')
    total = sum(storage.nbytes() for storage in storages.values())
    del losses
    return total


def memory_need(model: nn.Module, cfg: Config, batch: Any, ready: Readiness) -> None:
    """Estimate the memory of a step, and compare it with what the device has.

    Weights, gradients and two moments of the optimizer, and what the backward pass
    keeps for each image, counted on some images; 10 to 20 % more are usual.

    Raises:
        UserError: where the device has less.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    teacher = getattr(model, 'target_generator', None)
    teacher = getattr(teacher, 'teacher', teacher)
    network = getattr(teacher, 'network', None)
    if isinstance(network, nn.Module):
        frozen += sum(p.numel() for p in network.parameters())
    fixed = 16 * trained + 4 * frozen
    size = cfg.train_dataloader.get('batch_size', 1)
    shown = f'{trained / 1e6:.1f} M trained and {frozen / 1e6:.1f} M frozen weights'
    try:
        if batch is None or trained + frozen > _MOST_WEIGHTS:
            raise UserError('no batch was read' if batch is None else 'large model')
        each = _bytes_an_image(model, cfg, batch, teacher)
    except Exception as error:
        reason = ' '.join(str(error).split())[:120]
        ready.found.append(
            f'memory: {shown}, {fixed / _GB:.1f} GB with the optimizer; what images '
            f'take was not estimated ({reason})'
        )
        return
    total = fixed + each * size
    where, there = _memory_there()
    text = (
        f'memory: {shown}; about {total / _GB:.1f} GB a process ({fixed / _GB:.1f} and '
        f'{each / 1e6:.0f} MB for each of {size} images); {where} has '
        f'{there / _GB:.0f} GB'
    )
    if total > there:
        fits = max(int((there * 0.85 - fixed) / each), 0)
        raise UserError(
            f'{text}: set train_dataloader.batch_size to {fits} at most'
            if fits
            else f'{text}: take a smaller model'
        )
    ready.found.append(text)


def _bytes_an_image(model: nn.Module, cfg: Config, batch: Any, teacher: Any) -> float:
    """What the backward pass keeps for an image, counted on one."""
    if hasattr(teacher, 'random_weights') and not getattr(teacher, 'ready', True):
        teacher.random_weights = True  # of this copy; the values do not count
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel('ERROR')
        teacher.init_weights()
        logger.setLevel(level)
    if type_name(getattr(model, 'target_generator', None)) == 'CachedTeacher':
        model.target_generator = teacher
    dtype = None
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper':
        dtype = torch.bfloat16
    model.train()
    one = {key: value[:1] for key, value in batch.items()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # copies of the weights in half precision are kept once
    copies = 0 if dtype is None else 2 * trained
    return max(kept_bytes(model, one, dtype) - copies, 1)


def _memory_there() -> tuple[str, int]:
    if torch.cuda.is_available():
        return 'the GPU', torch.cuda.get_device_properties(0).total_memory
    pages, size = os.sysconf('SC_PHYS_PAGES'), os.sysconf('SC_PAGE_SIZE')
    return 'this machine', pages * size


def disk_need(model: nn.Module, cfg: Config, images: int, ready: Readiness) -> None:
    """Estimate the checkpoints and the teacher cache, and look for space.

    Raises:
        UserError: where a disk has less.
    """
    state = sum(v.numel() * v.element_size() for v in model.state_dict().values())
    moments = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    kept = hook.get('max_keep_ckpts', -1)
    if kept < 0:
        length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters') or 1
        kept = -(-length // max(hook.get('interval', 1), 1))
    count = kept + 1 if hook else 0  # a new one is written before an old one goes
    needs = {'checkpoints': (Path(cfg.work_dir), count * (state + moments))}
    cached = getattr(model, 'target_generator', None)
    if type_name(cached) == 'CachedTeacher':
        needs['teacher cache'] = (cached.cache_dir, _cache_bytes(cached, cfg, images))
    for what, (folder, need) in needs.items():
        free = shutil.disk_usage(existing_parent(folder)).free
        full = f'{what} in {folder}: {need / _GB:.1f} GB'
        if what == 'checkpoints':
            full += f' for {count} of {(state + moments) / _GB:.2f} GB'
        if need > free:
            raise UserError(f'{full}, but {free / _GB:.1f} GB are free')
        ready.found.append(f'{full}; {free / _GB:.0f} GB are free')


def _cache_bytes(cached: Any, cfg: Config, images: int) -> int:
    """Bytes of a teacher cache; 0 where one of this size is there."""
    views = [
        transform.get('num_views', 1)
        for transform in cfg.train_dataloader.dataset.get('pipeline') or []
        if type_name(transform) == 'FixedView'
    ]
    rows, length = images * (views or [1])[0], cached.grid[0] * cached.grid[1]
    values = (1 + length) * cached.embed_dims + cached.attention * length**2
    need = rows * values * (2 if cached.dtype == 'float16' else 4)
    files = cached.cache_dir.glob('*.safetensors')
    return 0 if any(file.stat().st_size >= need for file in files) else need
