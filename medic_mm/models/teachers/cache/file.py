"""The file of a teacher cache: safetensors, written row by row, read memory-mapped.

::

    tokens     (rows, 1 + L, D)  class token first, then patch tokens
    attention  (rows, L, L)      only where it was asked for
    filled     (rows,) bool      False where the image could not be read

The format is a JSON header in front of the raw data, so a file of full size can be
laid out first and filled in any order by several processes, in no more memory than a
batch takes. ``safetensors`` itself writes whole tensors only.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medic_mm.errors import DiskError, FileError, UserError

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
_NAMES = ('tokens', 'attention', 'filled')
_CODES = {'float16': 'F16', 'float32': 'F32'}
_TYPES = {'F16': torch.float16, 'F32': torch.float32, 'BOOL': torch.bool}


@dataclass
class TokenTable:
    """Contents of a token file.

    Attributes:
        tokens: ``(rows, 1 + L, D)``, float16 or float32.
        filled: ``(rows,)``, bool: which rows hold a teacher output.
        attention: ``(rows, L, L)``, of the tokens' dtype; None where the file has none.
    """

    tokens: Tensor
    filled: Tensor
    attention: Tensor | None = None


def _header(
    shape: Sequence[int], dtype: str, key: str, attention: bool
) -> tuple[bytes, int]:
    """The file's first bytes, and how many bytes of data follow."""
    rows, tokens, dims = shape
    parts = {'tokens': (_CODES[dtype], [rows, tokens, dims])}
    if attention:
        parts['attention'] = (_CODES[dtype], [rows, tokens - 1, tokens - 1])
    parts['filled'] = ('BOOL', [rows])
    header: dict[str, dict] = {'__metadata__': {'format': 'pt', 'key': key}}
    end = 0
    for name, (code, sizes) in parts.items():
        start, end = end, end + math.prod(sizes) * _TYPES[code].itemsize
        header[name] = {'dtype': code, 'shape': sizes, 'data_offsets': [start, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)  # keeps the data aligned
    return len(text).to_bytes(8, 'little') + text, end


def token_file_size(
    shape: Sequence[int], dtype: str, key: str, attention: bool = False
) -> int:
    """Bytes of a file for tokens of ``shape (rows, 1 + L, D)``."""
    header, data = _header(shape, dtype, key, attention)
    return len(header) + data


def create_token_file(
    path: Path, shape: Sequence[int], dtype: str, key: str, attention: bool = False
) -> None:
    """Lay out a file in which no row is filled yet.

    Raises:
        FileExistsError: if ``path`` is there already.
    """
    header, data = _header(shape, dtype, key, attention)
    with path.open('xb') as file:
        file.write(header)
        file.truncate(len(header) + data)


@dataclass
class _Part:
    """Where a tensor begins in the file, and the shape and dtype of its rows."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class TokenWriter:
    """Fills rows of a file laid out by :func:`create_token_file`.

    Several processes may write to one file, each its own rows. A context manager:
    leaving it brings the data to the disk.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        # unbuffered: a buffer would write back what others wrote in between
        self._file = path.open('r+b', buffering=0)
        length = int.from_bytes(self._file.read(8), 'little')
        header = json.loads(self._file.read(length))
        header.pop('__metadata__')
        self._parts = {
            name: _Part(
                8 + length + part['data_offsets'][0],
                tuple(part['shape'][1:]),
                _TYPES[part['dtype']],
            )
            for name, part in header.items()
        }

    def write(
        self, rows: Sequence[int], tokens: Tensor, attention: Tensor | None = None
    ) -> None:
        """Store ``tokens (B, 1 + L, D)`` and ``attention (B, L, L)`` as ``rows``.

        Raises:
            UserError: for another shape, values that the file's dtype cannot hold, or
                attention that is missing or has no place in the file.
            DiskError: where the disk has become full.
        """
        given = {'tokens': tokens, 'attention': attention}
        values = {name: value for name, value in given.items() if value is not None}
        if values.keys() != self._parts.keys() - {'filled'}:
            raise UserError(
                'the teacher returned no attention: attention=True of CachedTeacher '
                'needs a teacher that has it'
                if attention is None
                else 'the file was laid out without attention'
            )
        stored = {
            name: _as_stored(name, value, self._parts[name], len(rows))
            for name, value in values.items()
        }
        for name, batch in stored.items():
            start, row_bytes = self._parts[name].start, batch[0].nbytes
            for row, value in zip(rows, batch.numpy(), strict=True):
                self._put(value.tobytes(), start + row * row_bytes)
        for row in rows:
            self._put(b'\x01', self._parts['filled'].start + row)

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            try:
                written = os.pwrite(self._file.fileno(), data, offset)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise DiskError(
                    f'the disk of the teacher cache became full while it was filled '
                    f'({error.strerror}): make room in {self._folder}, or set '
                    'cache_dir of CachedTeacher to a larger disk'
                ) from error
            data, offset = data[written:], offset + written

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                os.fsync(self._file.fileno())


def _as_stored(name: str, values: Tensor, part: _Part, count: int) -> Tensor:
    if tuple(values.shape) != (count, *part.shape):
        raise UserError(
            f'the teacher returned {name} of shape {tuple(values.shape)} where its '
            f'grid and embed_dims promise {(count, *part.shape)}'
        )
    stored = values.to('cpu', part.dtype).contiguous()
    if not stored.isfinite().all():
        raise UserError(
            f'teacher outputs of magnitude {values.abs().max():g} do not fit into '
            f"{part.dtype}: set dtype='float32' of CachedTeacher"
            if values.isfinite().all()
            else 'the teacher returned values that are not finite: check its weights, '
            'and mean and std of data_preprocessor'
        )
    return stored


def read_token_file(path: Path, key: str, in_memory: bool) -> TokenTable:
    """Open a token file.

    Args:
        path: The file.
        key: The key that it was made with.
        in_memory: Read all now; otherwise tokens and attention stay memory-mapped and
            only the rows that are asked for are read.

    Raises:
        FileError: where the file is torn, or has another key or other contents.
    """
    try:
        with safe_open(path, framework='pt') as file:
            names = file.keys()
            parts = {name: file.get_tensor(name) for name in names}
            found = (file.metadata() or {}).get('key')
    except SafetensorError as error:
        raise FileError(
            f'the teacher cache {path} cannot be read ({error}): remove it to build it '
            'anew'
        ) from error
    except OSError as error:
        raise FileError(
            f"the teacher cache {path} cannot be read ({error}): see to the file's "
            'permissions and its disk'
        ) from error
    if found != key:
        raise FileError(
            f'the teacher cache {path} has the key {found} in place of {key}: remove '
            'it to build it anew'
        )
    rows = {len(values) for values in parts.values()}
    if not {'tokens', 'filled'} <= parts.keys() <= {*_NAMES} or len(rows) != 1:
        raise FileError(
            f'{path} is not a teacher cache: remove it to build one in its place'
        )
    # get_tensor maps the file; a copy is what brings it into memory
    copied = parts if in_memory else ('filled',)
    return TokenTable(**{k: v.clone() if k in copied else v for k, v in parts.items()})
