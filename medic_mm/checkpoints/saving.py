"""Write files of weights, as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Endings of the files that can be written.
SUFFIXES = ('.safetensors', '.pth', '.pt')

#: Where ``.pth`` files keep the description, below ``meta``.
DESCRIPTION = 'medic_mm'


def save_weights(
    weights: Mapping[str, Tensor],
    path: str | os.PathLike,
    description: Mapping[str, str],
    meta: Mapping[str, Any] | None = None,
    key: str = '',
) -> None:
    """Write weights and what is known of them.

    A stop at any moment leaves the old file, or the new one, never a part of it.

    Args:
        weights: By name.
        path: A file with one of :data:`SUFFIXES`; its folder is made where needed.
        description: Texts by name: the metadata of ``.safetensors``, or
            ``meta['medic_mm']`` in ``.pth``, where ``config`` is ``meta['cfg']``, as
            MMEngine has it.
        meta: More of ``meta``, for ``.pth`` only.
        key: Where ``.pth`` keeps the weights; ``''`` is ``'state_dict'``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    own = _own(weights)
    try:
        part.touch()
        mode = part.stat().st_mode
        if path.suffix == '.safetensors':
            from safetensors.torch import save_file

            save_file(own, part, {'format': 'pt', **description})
        else:
            known = dict(description)
            about = {**(meta or {}), DESCRIPTION: known}
            if 'config' in known:
                about['cfg'] = known.pop('config')
            torch.save({'meta': about, key or 'state_dict': own}, part)
        part.chmod(mode)  # safetensors makes files that only their owner can read
        with part.open('rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and none a part of another or of more than itself.

    A slice would be written with all that it was cut from, and ``.safetensors`` has no
    place for weights that share their memory.
    """
    taken: set[int] = set()
    own = {}
    for name, value in weights.items():
        value = value.detach().contiguous()
        storage = value.untyped_storage()
        if storage.nbytes() != value.nbytes or storage.data_ptr() in taken:
            value = value.clone()
        taken.add(value.untyped_storage().data_ptr())
        own[name] = value
    return own
