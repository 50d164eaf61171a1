"""Small jobs that many rooms have: names of types, lists in messages, models, devices.

Importing this module needs neither torch nor OpenMMLab.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def type_name(settings: Any) -> str:
    """Name of a component without its scope: ``'MaskedViT'`` of ``medic_mm.MaskedViT``.

    Args:
        settings: A dictionary with ``type``, a type's name, a class, or an object.
    """
    kind = settings.get('type') if isinstance(settings, Mapping) else settings
    if kind is None:
        return ''
    if not isinstance(kind, str):
        kind = getattr(kind, '__name__', type(kind).__name__)
    return kind.rpartition('.')[2]


def listed(names: Iterable[Any], most: int = 6) -> str:
    """Names for a message: ``'a, b and 3 more'``, or ``'nothing'``."""
    names = [str(name) for name in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return (', '.join(names[:most]) or 'nothing') + more


def first_line(error: object) -> str:
    """The first line of an error of a library; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def duration(seconds: float) -> str:
    """For example ``'48 s'``, ``'12 min'``, ``'3 h 20 min'``."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 100:
        return f'{minutes} min'
    return f'{minutes // 60} h {minutes % 60} min'


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names most like ``name``, nearest first, whatever their case."""
    names = list(known)
    wanted = name.lower()
    near = difflib.get_close_matches(wanted, {other.lower() for other in names}, n=most)
    order = {other: place for place, other in enumerate(near)}
    found = [other for other in names if other.lower() in order]
    # of names that differ in case alone, the one that is written alike comes first
    found.sort(key=lambda other: (order[other.lower()], other != name))
    return found[:most]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of distributed training and test-time augmentation."""
    from mmengine.model import BaseTTAModel, is_model_wrapper

    if is_model_wrapper(model):
        model = model.module
    return model.module if isinstance(model, BaseTTAModel) else model


def choose_device(device: str = 'auto') -> torch.device:
    """``'cpu'``, ``'cuda:1'`` and so on; ``'auto'`` is an accelerator, if any."""
    import torch
    from mmengine.device import get_device

    return torch.device(get_device() if device == 'auto' else device)
