"""Read checkpoint files without running code that they may carry."""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medic_mm.checkpoints.allowed import HISTORY, allowed_globals
from medic_mm.checkpoints.archive import (
    check_archive,
    is_archive,
    is_stored,
    is_torchscript,
)
from medic_mm.checkpoints.torchscript import read_torchscript
from medic_mm.errors import FileError, MissingFileError
from medic_mm.helpers import listed

#: Keys under which checkpoints of the field keep their weights, most specific first.
WEIGHT_KEYS = ('state_dict', 'model', 'module')

_MOST_HEADER = 100_000_000  # bytes: the limit of safetensors itself


def read_checkpoint(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a file of weights onto the CPU: the one reader of all tools and settings.

    Takes ``.safetensors``, what ``torch.save`` writes (as a zip archive, or in the
    format of torch before 1.6) and TorchScript archives. The content decides which it
    is, not the ending. Of ``torch.save`` files only tensors, plain values and what
    :mod:`~medic_mm.checkpoints.allowed` names are accepted; a file that would run
    anything else is refused: there is no unsafe second attempt. The checksums of an
    archive are compared.

    Args:
        path: A local file.
        mmap: Leave the tensors in the file until they are used, which saves memory. The
            file must not be written in place as long as they live; it may be replaced.
            Only for ``torch.save`` archives that are not compressed.

    Returns:
        What the file holds, as it is; for ``.safetensors`` and TorchScript its tensors
        by name.

    Raises:
        MissingFileError: for no such file.
        FileError: for a file that carries code, is damaged or not a checkpoint.
    """
    path = require_file(path)
    try:
        if is_archive(path):
            entries = check_archive(path)
            if is_torchscript(entries):
                return read_torchscript(path)
            mappable = is_stored(entries) and path.suffix != '.safetensors'
            return _read_torch(path, mmap and mappable)
        if is_safetensors(path):
            return _read_safetensors(path)
    except OSError as error:
        raise FileError(f'checkpoint {path} cannot be read ({error})') from error
    return _read_torch(path, mmap=False)


def require_file(path: str | os.PathLike) -> Path:
    """A path with ``~`` expanded, where there is a file.

    Raises:
        MissingFileError: where there is none.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f'checkpoint {path} does not exist or is no file')
    return path


def read_state_dict(path: str | os.PathLike, mmap: bool = False) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, wherever it keeps them.

    Looks under ``state_dict``, ``model`` and ``module``; a file without these is taken
    as the weights themselves.

    Args:
        path: A local file.
        mmap: As in :func:`read_checkpoint`.

    Raises:
        FileError: for a file without tensors; also as :func:`read_checkpoint`.
    """
    return find_weights(path, read_checkpoint(path, mmap))


def find_weights(path: str | os.PathLike, content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` returned for ``path``.

    Raises:
        FileError: where it holds no tensors, tensors without a name, or arrays of numpy
            among them.
    """
    for key in WEIGHT_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    arrays = [name for name, v in content.items() if isinstance(v, np.ndarray)]
    if arrays:
        raise FileError(
            f'checkpoint {path} has numpy arrays in place of tensors '
            f'({listed(arrays)}): save them as torch.from_numpy(...)'
        )
    unnamed = [name for name in weights if not isinstance(name, str)]
    if unnamed:
        raise FileError(
            f'checkpoint {path} has weights whose names are not texts '
            f'({listed(map(repr, unnamed))}): save a state dict, with names'
        )
    if not weights:
        raise FileError(
            f'checkpoint {path} has no weights: it holds {listed(content, 8)}'
        )
    return weights


def is_safetensors(path: Path) -> bool:
    """Whether a file is of safetensors, by its ending or its first bytes."""
    if path.suffix == '.safetensors':
        return True
    with path.open('rb') as file:
        start = file.read(9)
    return (
        len(start) == 9
        and start[8:] == b'{'
        and 2 <= struct.unpack('<Q', start[:8])[0] <= _MOST_HEADER
    )


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a ``.safetensors`` file; empty for any other file.

    Raises:
        FileError: where the file is damaged.
    """
    path = require_file(path)
    if is_archive(path) or not is_safetensors(path):
        return {}
    return _header(path).get('__metadata__', {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise FileError(
            f'reading {path} needs the package safetensors: pip install safetensors'
        ) from error
    _header(path)
    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, KeyError for a dtype
        raise FileError(
            f'checkpoint {path} is incomplete or no safetensors file '
            f'({_first_line(error)})'
        ) from error


def _header(path: Path) -> dict[str, Any]:
    """The header, which safetensors reads with the last of two equal names."""
    try:
        with path.open('rb') as file:
            (size,) = struct.unpack('<Q', file.read(8))
            if size > min(_MOST_HEADER, path.stat().st_size - 8):
                raise ValueError('its header is longer than the file')
            header = json.loads(file.read(size), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError('its header does not name tensors')
    except (ValueError, struct.error, RecursionError) as error:
        raise FileError(
            f'checkpoint {path} is incomplete or no safetensors file ({error})'
        ) from error
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = {name for name in names if names.count(name) > 1}
        raise ValueError(f'it has {listed(sorted(doubled))} twice')
    return found


def _read_torch(path: Path, mmap: bool) -> dict[str, Any]:
    try:
        with (
            torch.serialization.safe_globals(allowed_globals()),
            warnings.catch_warnings(),
            path.open('rb') as file,  # by a path, torch goes by its ending
        ):
            warnings.simplefilter('ignore')  # of torch, about the file's age
            content = torch.load(
                path if mmap else file,
                map_location='cpu',
                weights_only=True,
                mmap=mmap,
            )
    except MemoryError:
        raise
    except Exception as error:
        raise FileError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise FileError(
            f'checkpoint {path} holds a {type(content).__name__}, not a dictionary of '
            'weights'
        )
    return content


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    code = re.search(r'GLOBAL (\S+)|unrecognized function (.+)', text)
    if isinstance(error, UnpicklingError) and code:
        name = code[1] or code[2]
        if name == HISTORY:  # allowed where it can be imported
            return (
                f'checkpoint {path} holds the training log of MMEngine '
                '(HistoryBuffer), and the package mmengine is not installed: pip '
                'install mmengine, or, where it is, export the checkpoint by '
                'tools/export_hf.py or tools/convert.py, and give that file'
            )
        return (
            f'checkpoint {path} carries pickled code ({name}) and was not loaded: keep '
            'only its tensors in the file, or convert it to .safetensors'
        )
    with path.open('rb') as file:
        start = file.read(2)
    if start[:1] == b'\x80' and start[1:] > b'\x02':
        return (
            f'checkpoint {path} is a pickle (protocol {start[1]}) that torch.save did '
            'not write and may carry code, so it was not loaded: keep only its tensors '
            'in the file, or convert it to .safetensors'
        )
    # torch's first lines advise to load the file unsafely
    detail = re.search(r'WeightsUnpickler error:\s*(.+)', text)
    reason = _first_line(detail[1] if detail else error)
    return f'checkpoint {path} is incomplete or no checkpoint ({reason})'


def _first_line(error: Exception | str) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
