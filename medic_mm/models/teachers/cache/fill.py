"""A fill of a teacher cache: room on the disk, what a killed one left, its progress."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from medic_mm.checkpoints.saving import write_json
from medic_mm.errors import DiskError
from medic_mm.helpers import listed
from medic_mm.models.teachers.cache.file import Layout, RowWriter, read_cache

_SECONDS_BETWEEN_REPORTS = 10.0


@contextmanager
def new_cache(
    path: Path, layout: Layout, made_from: dict[str, Any], logger: MMLogger
) -> Iterator[Path]:
    """A ``.partial`` file to fill, which is named ``path`` if the body succeeds.

    It has the rows that a killed fill of the same layout has left. It is locked, so
    that of several runs with one key each fills a file of its own. Called by all
    processes alike.

    Raises:
        DiskError: where the folder cannot be written to, or the disk is too small.
    """
    shared: list[Any] = [None]
    lock = None
    if is_main_process():
        _make_folder(path.parent)
        shared[0], lock = _open_partial(path, layout, logger)
    broadcast_object_list(shared)
    partial: Path = shared[0]
    try:
        yield partial
        barrier()
        if is_main_process():
            os.replace(partial, path)
            _describe_beside(path, layout, made_from)
        barrier()
    except DiskError:
        partial.unlink(missing_ok=True)  # it is in the way of all else on the disk
        raise
    finally:
        if lock is not None:
            lock.close()


def _open_partial(
    path: Path, layout: Layout, logger: MMLogger
) -> tuple[Path, BinaryIO]:
    """A killed fill that can be taken up, or else a new file; and the file's lock."""
    for partial in sorted(path.parent.glob(f'{path.stem}.*.partial')):
        lock = _locked(partial)
        if lock is not None and layout.is_of(partial):
            _take_up(partial, layout, logger)
            return partial, lock
    _require_space(path.parent, layout.header()[2], logger)
    partial = path.with_suffix(f'.{uuid.uuid4().hex[:8]}.partial')
    layout.create(partial)
    lock = partial.open('r+b')
    _try_lock(lock)
    return partial, lock


def _locked(path: Path) -> BinaryIO | None:
    """The open file, locked; None where another process is at work on it."""
    with suppress(OSError):
        file = path.open('r+b')
        # by now it may be complete, with another name, or removed
        if _try_lock(file) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()
    return None


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or the file system has no locks
        return False
    return True


def _take_up(partial: Path, layout: Layout, logger: MMLogger) -> None:
    table = read_cache(partial, layout.key, in_memory=False)
    filled = table.filled.nonzero()[:, 0]
    damaged = table.damaged(filled)
    with RowWriter(partial, layout) as writer:
        writer.empty(damaged)
    logger.info(
        f'The fill of {partial} goes on where it was cut short: '
        f'{len(filled) - len(damaged)} of {layout.rows} views are there.'
    )


def _make_folder(folder: Path) -> None:
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


def _require_space(folder: Path, size: int, logger: MMLogger) -> None:
    """Refuse a fill that the disk has no room for; name unfinished ones."""
    free = shutil.disk_usage(folder).free
    unfinished = {path: _bytes_on_disk(path) for path in folder.glob('*.partial')}
    held = sum(unfinished.values())
    names = listed(f'{path} ({_gb(count)})' for path, count in unfinished.items())
    if size <= free:
        if unfinished:
            logger.warning(
                'Unfinished fills of teacher caches, to be removed unless a training '
                f'is at work on them or will go on with them: {names}.'
            )
        return
    advice = (
        'set cache_dir of CachedTeacher to a larger disk, or num_views of FixedView to '
        'fewer views'
    )
    if held:
        remove = f'remove {names}, left by a fill that was ended, unless one is at work'
        enough = size <= free + held
        advice = remove if enough else f'{advice}; {remove}, which alone is not enough'
    raise DiskError(
        f'the teacher cache needs {_gb(size)} but {folder} has {_gb(free)} free: '
        f'{advice}'
    )


def _bytes_on_disk(path: Path) -> int:
    """What removing a file sets free: one laid out is not yet on the disk."""
    try:
        status = path.stat()
    except FileNotFoundError:  # its fill has ended meanwhile
        return 0
    return getattr(status, 'st_blocks', -(-status.st_size // 512)) * 512


def _gb(count: int) -> str:
    return f'{count / 1e9:.3g} GB'


def _describe_beside(path: Path, layout: Layout, made_from: dict[str, Any]) -> None:
    about = {
        'what': f'Outputs of a frozen teacher for fixed views, in {path.name}; '
        'medic_mm.TeacherCacheHook made them and uses them again.',
        'rows': 'Row i * num_views + v: view v of image i; class token, then patches.',
        'to_clear': 'Remove both files; the next training fills the cache again.',
        'bytes': path.stat().st_size,
        'key': layout.key,
        'made_from': made_from,
    }
    write_json(path.with_suffix('.json'), about)


def with_progress(loader: DataLoader, total: int, logger: MMLogger) -> Iterator[Any]:
    """The loader's batches, and log lines with the time left, some seconds apart."""
    start = last = time.monotonic()
    for number, batch in enumerate(loader, start=1):
        yield batch
        done, now = min(number * (loader.batch_size or 1), total), time.monotonic()
        if now - last >= _SECONDS_BETWEEN_REPORTS or done == total:
            last = now
            left = (now - start) / done * (total - done)
            logger.info(
                f'Teacher cache: {done} of {total} views ({100 * done // total} %), '
                f'{left:.0f} s left.'
            )
