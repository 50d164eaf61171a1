"""Whether a teacher cache has room on its disk, and what to remove where it has not."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.logging import MMLogger

from medic_mm.errors import DiskError
from medic_mm.helpers import listed


def make_folder(folder: Path) -> None:
    """Make the folder of the caches.

    Raises:
        DiskError: where it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        why = 'no permission to write'
    except OSError as error:
        writable, why = False, error.strerror
    if not writable:
        raise DiskError(
            f'cache_dir={str(folder)!r} of CachedTeacher cannot hold a cache ({why}): '
            'set it to a folder that can be written to'
        )


def require_space(folder: Path, size: int, free: int, logger: MMLogger) -> None:
    """Refuse a fill that the disk has no room for, and name unfinished ones.

    Args:
        folder: Of the caches.
        size: Bytes that the new one needs.
        free: Bytes that the disk has.
        logger: Names unfinished fills where there is room.

    Raises:
        DiskError: says whether removing unfinished fills is enough.
    """
    unfinished = {path: _bytes_on_disk(path) for path in folder.glob('*.partial')}
    held = sum(unfinished.values())
    names = listed(f'{path} ({_gb(count)})' for path, count in unfinished.items())
    if size <= free:
        if unfinished:
            logger.warning(
                'Unfinished fills of teacher caches, to be removed unless a training '
                'is at work on them: %s.',
                names,
            )
        return
    lack = f'the teacher cache needs {_gb(size)} but {folder} has {_gb(free)} free'
    larger = (
        'set cache_dir of CachedTeacher to a larger disk, or num_views of FixedView to '
        'fewer views'
    )
    if not held:
        raise DiskError(f'{lack}: {larger}')
    remedy = f'remove {names}, left by a fill that was ended, unless one is at work'
    if size <= free + held:
        raise DiskError(f'{lack}: {remedy}')
    raise DiskError(f'{lack}: {larger}; {remedy}, which alone is not enough')


def _bytes_on_disk(path: Path) -> int:
    """What removing a file sets free: one laid out is not yet on the disk."""
    try:
        status = path.stat()
    except FileNotFoundError:  # its build has ended meanwhile
        return 0
    return getattr(status, 'st_blocks', -(-status.st_size // 512)) * 512


def _gb(count: int) -> str:
    return f'{count / 1e9:.3g} GB'
