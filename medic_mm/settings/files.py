"""Folders that a run writes to."""

from __future__ import annotations

import os
from pathlib import Path

from medic_mm.errors import UserError


def existing_parent(path: str | Path) -> Path:
    """The path itself, or the first of the folders above it that exists."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def require_writable(path: str | Path, setting: str) -> None:
    """Refuse a folder that cannot be made, or not be written to.

    Raises:
        UserError: names the setting, and the file or folder that is in the way.
    """
    if not str(path).strip():
        raise UserError(f'{setting} is empty: give the name of a folder')
    folder = existing_parent(path)
    if not folder.is_dir():
        raise UserError(f'{setting} {path}: {folder} is not a folder')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'{setting} {path}: no permission to write in {folder}')
