"""The file of a teacher cache: safetensors, written row by row, read memory-mapped.

::

    tokens  (rows, 1 + L, D)  class token first, then patch tokens
    filled  (rows,) bool      False where the image could not be read

The format is a JSON header in front of the raw data, so a file of full size can be
laid out first and filled in any order by several processes, in no more memory than a
batch takes. ``safetensors`` itself writes whole tensors only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
_CODES = {'float16': 'F16', 'float32': 'F32'}


@dataclass
class TokenTable:
    """Contents of a token file.

    Attributes:
        tokens: ``(rows, 1 + L, D)``, float16 or float32.
        filled: ``(rows,)``, bool: which rows hold a teacher output.
    """

    tokens: Tensor
    filled: Tensor


def _header(shape: Sequence[int], dtype: str, key: str) -> bytes:
    rows, tokens, dims = shape
    end = rows * tokens * dims * DTYPES[dtype].itemsize
    header = {
        '__metadata__': {'format': 'pt', 'key': key},
        'tokens': {
            'dtype': _CODES[dtype],
            'shape': [rows, tokens, dims],
            'data_offsets': [0, end],
        },
        'filled': {'dtype': 'BOOL', 'shape': [rows], 'data_offsets': [end, end + rows]},
    }
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)  # keeps the data aligned
    return len(text).to_bytes(8, 'little') + text


def token_file_size(shape: Sequence[int], dtype: str, key: str) -> int:
    """Bytes of a file for tokens of ``shape (rows, 1 + L, D)``."""
    rows, tokens, dims = shape
    data = rows * tokens * dims * DTYPES[dtype].itemsize
    return len(_header(shape, dtype, key)) + data + rows


def create_token_file(path: Path, shape: Sequence[int], dtype: str, key: str) -> None:
    """Lay out a file in which no row is filled yet.

    Raises:
        FileExistsError: if ``path`` is there already.
    """
    with path.open('xb') as file:
        file.write(_header(shape, dtype, key))
        file.truncate(token_file_size(shape, dtype, key))


class TokenWriter:
    """Fills rows of a file laid out by :func:`create_token_file`.

    Several processes may write to one file, each its own rows. A context manager:
    leaving it brings the data to the disk.
    """

    def __init__(self, path: Path) -> None:
        # unbuffered: a buffer would write back what others wrote in between
        self._file = path.open('r+b', buffering=0)
        length = int.from_bytes(self._file.read(8), 'little')
        header = json.loads(self._file.read(length))
        self._start = 8 + length
        self._filled = self._start + header['filled']['data_offsets'][0]
        self._shape = tuple(header['tokens']['shape'])
        codes = {code: DTYPES[name] for name, code in _CODES.items()}
        self._dtype = codes[header['tokens']['dtype']]

    def write(self, rows: Sequence[int], tokens: Tensor) -> None:
        """Store ``tokens (B, 1 + L, D)`` as ``rows``.

        Raises:
            ValueError: for another shape, or values that the file's dtype cannot hold.
        """
        if tuple(tokens.shape) != (len(rows), *self._shape[1:]):
            raise ValueError(
                f'the teacher returned tokens of shape {tuple(tokens.shape)} where its '
                f'grid and embed_dims promise {(len(rows), *self._shape[1:])}'
            )
        stored = tokens.to('cpu', self._dtype).contiguous()
        if not stored.isfinite().all():
            raise ValueError(
                f'teacher outputs of magnitude {tokens.abs().max():g} do not fit into '
                f"{self._dtype}: set dtype='float32' of CachedTeacher"
                if tokens.isfinite().all()
                else 'the teacher returned values that are not finite'
            )
        row_bytes = stored[0].nbytes
        for row, value in zip(rows, stored.numpy(), strict=True):
            self._put(value.tobytes(), self._start + row * row_bytes)
            self._put(b'\x01', self._filled + row)

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self._file.fileno(), data, offset)
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


def read_token_file(path: Path, key: str, in_memory: bool) -> TokenTable:
    """Open a token file.

    Args:
        path: The file.
        key: The key that it was made with.
        in_memory: Read all tokens now; otherwise they stay memory-mapped and only
            the rows that are asked for are read.

    Raises:
        RuntimeError: where the file is torn, or has another key.
    """
    try:
        with safe_open(path, framework='pt') as file:
            tokens, filled = file.get_tensor('tokens'), file.get_tensor('filled')
            found = (file.metadata() or {}).get('key')
    except (SafetensorError, OSError) as error:
        raise RuntimeError(
            f'the teacher cache {path} cannot be read ({error}): remove it to build it '
            'anew'
        ) from error
    if found != key:
        raise RuntimeError(
            f'the teacher cache {path} has the key {found} in place of {key}: remove '
            'it to build it anew'
        )
    # get_tensor maps the file; a copy is what brings it into memory
    tokens = tokens.clone() if in_memory else tokens
    return TokenTable(tokens, filled.clone())
