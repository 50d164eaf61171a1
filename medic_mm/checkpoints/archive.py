"""Checks of the zip archives that ``torch.save`` and TorchScript write."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from pathlib import Path

from medic_mm.errors import FileError
from medic_mm.helpers import listed

#: What zipfile raises for a file that is not as it was written.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError)


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does; its end may be missing."""
    with path.open('rb') as file:
        return file.read(4) == b'PK\x03\x04'


def check_archive(path: Path) -> list[zipfile.ZipInfo]:
    """Compare every entry with the archive's own checksum, which torch does not do.

    A file written after ``torch.serialization.set_crc32_options(False)`` has zeros in
    place of all checksums, and is taken as it is.

    Returns:
        The entries.

    Raises:
        FileError: for a damaged archive, or one with two entries of a name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unchecked = all(entry.CRC == 0 for entry in entries)
            damaged = None if unchecked else archive.testzip()
    except DAMAGED as error:  # NotImplementedError is a RuntimeError
        raise FileError(
            f'checkpoint {path} is incomplete or no checkpoint ({error}): save or '
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


def is_stored(entries: list[zipfile.ZipInfo]) -> bool:
    """Whether no entry is compressed, so that tensors can stay in the file."""
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def is_torchscript(entries: list[zipfile.ZipInfo]) -> bool:
    """Whether the archive is one of ``torch.jit.save``."""
    return any(entry.filename.endswith('/constants.pkl') for entry in entries)
