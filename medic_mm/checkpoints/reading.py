"""Read checkpoint files without running code that they may carry."""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medic_mm.checkpoints.pickled import (
    DAMAGED,
    HISTORY,
    allowed_globals,
    read_torchscript,
)
from medic_mm.errors import FileError, MissingFileError
from medic_mm.helpers import first_line, listed

#: Keys under which checkpoints of the field keep their weights, most specific first.
WEIGHT_KEYS = ('state_dict', 'model', 'module')

_MOST_HEADER = 100_000_000  # bytes: the limit of safetensors itself


def read_checkpoint(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a file of weights onto the CPU: the one reader of all tools and settings.

    Takes ``.safetensors``, what ``torch.save`` writes (as a zip archive, or in the
    format of torch before 1.6) and TorchScript archives. The content decides which it
    is, not the ending. Of ``torch.save`` files only tensors, plain values and what
    :mod:`~medic_mm.checkpoints.pickled` names are accepted; a file that would run
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
    path = _require_file(path)
    try:
        if _is_archive(path):
            entries = _check_archive(path)
            if any(entry.filename.endswith('/constants.pkl') for entry in entries):
                return read_torchscript(path)
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            return _read_torch(path, mmap and stored and path.suffix != '.safetensors')
        if _is_safetensors(path):
            return _read_safetensors(path)
    except OSError as error:
        raise FileError(f'checkpoint {path} cannot be read ({error})') from error
    return _read_torch(path, mmap=False)


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


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a ``.safetensors`` file; empty for any other file.

    Raises:
        FileError: where the file is damaged.
    """
    path = _require_file(path)
    if _is_archive(path) or not _is_safetensors(path):
        return {}
    return _header(path).get('__metadata__', {})


def _require_file(path: str | os.PathLike) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f'checkpoint {path} does not exist or is not a file')
    return path


def _is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does; its end may be missing."""
    with path.open('rb') as file:
        return file.read(4) == b'PK\x03\x04'


def _check_archive(path: Path) -> list[zipfile.ZipInfo]:
    """Entries of an archive, each compared with its checksum, which torch does not do.

    A file written after ``torch.serialization.set_crc32_options(False)`` has zeros in
    place of all checksums, and is taken as it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unchecked = all(entry.CRC == 0 for entry in entries)
            damaged = None if unchecked else archive.testzip()
    except DAMAGED as error:  # NotImplementedError is a RuntimeError
        raise FileError(
            f'checkpoint {path} is incomplete or not a checkpoint ({error}): save or '
            'fetch it again'
        ) from error
    if damaged is not None:
        raise FileError(
            f"checkpoint {path} is damaged: {damaged} differs from the archive's own "
            'checksum; save or fetch it again'
        )
    counts = Counter(entry.filename for entry in entries)
    if doubled := [name for name, count in counts.items() if count > 1]:
        raise FileError(
            f'checkpoint {path} has several entries of the same name: {listed(doubled)}'
        )
    return entries


def _is_safetensors(path: Path) -> bool:
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
        raise _not_safetensors(path, first_line(error)) from error


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
        raise _not_safetensors(path, error) from error
    return header


def _not_safetensors(path: Path, reason: object) -> FileError:
    return FileError(
        f'checkpoint {path} is incomplete or not a safetensors file ({reason})'
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(name for name, _ in pairs)
    if doubled := sorted(name for name, count in counts.items() if count > 1):
        raise ValueError(f'it has {listed(doubled)} twice')
    return dict(pairs)


def _read_torch(path: Path, mmap: bool) -> dict[str, Any]:
    try:
        with (
            torch.serialization.safe_globals(allowed_globals()),
            warnings.catch_warnings(),
            path.open('rb') as file,  # by a path, torch goes by its ending
        ):
            warnings.simplefilter('ignore')  # of torch, about the file's age
            source = path if mmap else file
            content = torch.load(source, 'cpu', weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except Exception as error:
        raise FileError(f'checkpoint {path} {_explain(path, error)}') from error
    if not isinstance(content, dict):
        raise FileError(
            f'checkpoint {path} holds a {type(content).__name__}, not a dictionary of '
            'weights'
        )
    return content


def _explain(path: Path, error: Exception) -> str:
    """Why torch did not load a file, after its name."""
    text = str(error)
    code = re.search(r'GLOBAL (\S+)|unrecognized function (.+)', text)
    if isinstance(error, UnpicklingError) and code:
        name = code[1] or code[2]
        if name == HISTORY:  # allowed where it can be imported
            return (
                'holds the training log of MMEngine (HistoryBuffer), and the package '
                'mmengine is not installed: pip install mmengine, or, where it is, '
                'export the checkpoint by tools/export_hf.py or tools/convert.py, and '
                'give that file'
            )
        return (
            f'carries pickled code ({name}) and was not loaded: keep only its tensors '
            'in the file, or convert it to .safetensors'
        )
    with path.open('rb') as file:
        start = file.read(2)
    if start[:1] == b'\x80' and start[1:] > b'\x02':
        return (
            f'is a pickle (protocol {start[1]}) that torch.save did not write and may '
            'carry code, so it was not loaded: keep only its tensors in the file, or '
            'convert it to .safetensors'
        )
    # torch's first lines advise to load the file unsafely
    detail = re.search(r'WeightsUnpickler error:\s*(.+)', text)
    reason = first_line(detail[1] if detail else error)
    return f'is incomplete or not a checkpoint ({reason})'
