"""Write files as a whole or not at all; weights with a description of their run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Endings of the files of weights that can be written.
SUFFIXES = ('.safetensors', '.pth', '.pt')

#: Where ``.pth`` files keep the description, below ``meta``.
DESCRIPTION = 'medic_mm'


def write_whole(
    path: str | os.PathLike, content: str | bytes | Callable[[Path], object]
) -> None:
    """Write a file so that a stop at any moment leaves the old one, or the new one.

    The draft ``.NAME.part`` in the same folder is synced to disk and renamed; one that
    a killed process left is written over. Folders are made where needed.

    Args:
        path: The file.
        content: A text (UTF-8; bytes of file names that are not, as they are), bytes,
            or a function that writes the draft whose path it is given.

    Raises:
        OSError: where the file cannot be written; the draft is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.part')
    try:
        if isinstance(content, str):
            content = content.encode('utf-8', 'surrogateescape')
        if isinstance(content, bytes):
            draft.write_bytes(content)
        else:
            draft.touch()
            mode = draft.stat().st_mode
            content(draft)
            draft.chmod(mode)  # safetensors makes files that only their owner can read
        with draft.open('rb+') as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: str | os.PathLike, content: Any, indent: int = 2) -> None:
    """Write a JSON file by :func:`write_whole`."""
    write_whole(path, json.dumps(content, indent=indent) + '\n')


def save_weights(
    weights: Mapping[str, Tensor],
    path: str | os.PathLike,
    description: Mapping[str, str],
    meta: Mapping[str, Any] | None = None,
    key: str = 'state_dict',
) -> None:
    """Write weights and what is known of them, by :func:`write_whole`.

    Args:
        weights: By name.
        path: A file with one of :data:`SUFFIXES`; its folder is made where needed.
        description: Texts by name: the metadata of ``.safetensors``, or
            ``meta['medic_mm']`` in ``.pth``, where ``config`` is ``meta['cfg']``, as
            mmengine has it.
        meta: More of ``meta``, for ``.pth`` only.
        key: Where ``.pth`` keeps the weights.
    """
    own = _own(weights)
    if Path(path).suffix == '.safetensors':
        from safetensors.torch import save_file

        metadata = {'format': 'pt', **description}
        write_whole(path, lambda draft: save_file(own, draft, metadata))
        return
    known = dict(description)
    about: dict[str, Any] = {**(meta or {}), DESCRIPTION: known}
    if 'config' in known:
        about['cfg'] = known.pop('config')
    write_whole(path, lambda draft: torch.save({'meta': about, key: own}, draft))


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


def _sync_folder(folder: Path) -> None:
    """Bring a rename to disk, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
