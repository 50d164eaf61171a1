"""The file of a teacher cache: safetensors, written row by row, read memory-mapped.

::

    checksums  (rows,) int64     CRC-32 of the bytes of a row, contents in their order
    tokens     (rows, 1 + L, D)  class token first, then patch tokens
    attention  (rows, L, L)      only where it was asked for
    filled     (rows,) bool      whether the row holds an output

Its metadata have the ``key``, the ``version`` of this format, and the ``contents`` of a
row (``'tokens attention'``; another teacher's could be ``'query key value'``). A JSON
header stands in front of the raw data, so a file of full size is laid out first and
filled in any order by several processes, in no more memory than a batch takes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medic_mm.checks import require
from medic_mm.errors import DiskError, FileError, UserError

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
#: Of the format; files from before it was counted have version 1.
VERSION = '2'
_CODES = {'float16': 'F16', 'float32': 'F32'}
_BYTES = {'I64': 8, 'F16': 2, 'F32': 4, 'BOOL': 1}


@dataclass(frozen=True)
class Layout:
    """What a cache holds.

    Attributes:
        key: Key of the cache.
        rows: Number of rows.
        dtype: ``'float16'`` or ``'float32'``, of all contents.
        contents: Name of each of a row's contents to its shape.
    """

    key: str
    rows: int
    dtype: str
    contents: dict[str, tuple[int, ...]]

    def header(self) -> tuple[bytes, dict[str, int], int]:
        """The file's first bytes, where each tensor begins, and bytes in all."""
        code = _CODES[self.dtype]
        parts: dict[str, tuple[str, list[int]]] = {'checksums': ('I64', [self.rows])}
        for name, shape in self.contents.items():
            parts[name] = code, [self.rows, *shape]
        parts['filled'] = 'BOOL', [self.rows]
        about = dict(key=self.key, version=VERSION, contents=' '.join(self.contents))
        header: dict[str, Any] = {'__metadata__': {'format': 'pt', **about}}
        end = 0
        for name, (code, sizes) in parts.items():
            start, end = end, end + math.prod(sizes) * _BYTES[code]
            header[name] = dict(dtype=code, shape=sizes, data_offsets=[start, end])
        text = json.dumps(header).encode()
        text += b' ' * (-len(text) % 8)  # keeps the data aligned
        first = len(text).to_bytes(8, 'little') + text
        starts = {name: len(first) + header[name]['data_offsets'][0] for name in parts}
        return first, starts, len(first) + end

    def create(self, path: Path) -> None:
        """Lay out a file in which no row is filled yet.

        Raises:
            FileExistsError: if ``path`` is there already.
        """
        first, _, size = self.header()
        with path.open('xb') as file:
            file.write(first)
            file.truncate(size)

    def is_of(self, path: Path) -> bool:
        """Whether a file was laid out like this."""
        first, _, size = self.header()
        with path.open('rb') as file:
            return path.stat().st_size == size and file.read(len(first)) == first


class RowWriter:
    """Fills rows of a file with this layout; a context manager, which syncs the disk.

    Several processes may write to one file, each its own rows.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._folder, self._layout = path.parent, layout
        _, self._starts, _ = layout.header()
        # unbuffered: a buffer would write back what others wrote in between
        self._file = path.open('r+b', buffering=0)

    def write(self, rows: Sequence[int], values: Mapping[str, Tensor]) -> None:
        """Store contents ``(B, ...)`` as ``rows``.

        Raises:
            UserError: for another shape, values that the file's dtype cannot hold, or
                contents that are missing or have no place in the file.
            DiskError: where the disk has become full.
        """
        wanted = self._layout.contents
        lacking = ', '.join(wanted.keys() - values.keys())
        require(
            not lacking,
            f'the teacher returned no {lacking}: {lacking}=True of CachedTeacher needs '
            'a teacher that has it',
        )
        more = ', '.join(values.keys() - wanted.keys())
        require(not more, f'the file was laid out without {more}')
        stored = {
            name: self._as_stored(name, values[name], (len(rows), *shape)).numpy()
            for name, shape in wanted.items()
        }
        for place, row in enumerate(rows):
            checksum = 0
            for name, batch in stored.items():
                data = batch[place].tobytes()
                checksum = zlib.crc32(data, checksum)
                self._put(data, self._starts[name] + row * len(data))
            checked = checksum.to_bytes(8, 'little')
            self._put(checked, self._starts['checksums'] + row * len(checked))
            # at last, so that a row counts only when all of it is there
            self._put(b'\x01', self._starts['filled'] + row)

    def empty(self, rows: Iterable[int]) -> None:
        """Mark rows as not filled."""
        for row in rows:
            self._put(b'\x00', self._starts['filled'] + row)

    def _as_stored(self, name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        require(
            tuple(values.shape) == shape,
            f'the teacher returned {name} of shape {tuple(values.shape)} where its '
            f'grid and embed_dims promise {shape}',
        )
        dtype = DTYPES[self._layout.dtype]
        stored = values.to('cpu', dtype).contiguous()
        if not stored.isfinite().all():
            raise UserError(
                f'teacher outputs of magnitude {values.abs().max():g} do not fit into '
                f"{dtype}: set dtype='float32' of CachedTeacher"
                if values.isfinite().all()
                else 'the teacher returned values that are not finite: check its '
                'weights, and mean and std of data_preprocessor'
            )
        return stored

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

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())


@dataclass
class CacheTable:
    """Contents of a cache file: ``(rows, ...)`` each, and which rows hold an output."""

    contents: dict[str, Tensor]
    checksums: Tensor
    filled: Tensor
    sound: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sound = torch.zeros_like(self.filled)

    def damaged(self, rows: Tensor) -> list[int]:
        """Those of some filled rows whose bytes are not those that were written.

        A row that was found sound is not looked at again.
        """
        wrong = []
        for row in rows[~self.sound[rows]].tolist():
            checksum = 0
            for values in self.contents.values():
                checksum = zlib.crc32(values[row].numpy(), checksum)
            self.sound[row] = checksum == int(self.checksums[row])
            if not self.sound[row]:
                wrong.append(row)
        return wrong


def version_of(path: Path) -> str:
    """Version of a file's format.

    Of a file that cannot be read it is the present one: :func:`read_cache` says why.
    """
    try:
        with safe_open(path, framework='pt') as file:
            return (file.metadata() or {}).get('version', '1')
    except (SafetensorError, OSError):
        return VERSION


def read_cache(path: Path, key: str, in_memory: bool) -> CacheTable:
    """Open a cache file.

    Args:
        path: The file.
        key: The key that it was made with.
        in_memory: Read all now; otherwise the contents stay memory-mapped and only the
            rows that are asked for are read.

    Raises:
        FileError: where the file is torn, or has another key or other contents.
    """
    try:
        with safe_open(path, framework='pt') as file:
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        remedy = (
            'remove it to build it anew'
            if isinstance(error, SafetensorError)
            else "see to the file's permissions and its disk"
        )
        raise FileError(
            f'the teacher cache {path} cannot be read ({error}): {remedy}'
        ) from error
    if (found := about.get('key')) != key:
        raise FileError(
            f'the teacher cache {path} has the key {found} in place of {key}: remove '
            'it to build it anew'
        )
    names = about.get('contents', '').split()
    rows = {len(values) for values in parts.values()}
    if parts.keys() != {'checksums', 'filled', *names} or len(rows) != 1 or not names:
        raise FileError(
            f'{path} is not a teacher cache: remove it to build one in its place'
        )
    # get_tensor maps the file; a copy is what brings it into memory
    contents = {k: parts[k].clone() if in_memory else parts[k] for k in names}
    return CacheTable(contents, parts['checksums'].clone(), parts['filled'].clone())
