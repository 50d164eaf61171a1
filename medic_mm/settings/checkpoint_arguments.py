"""``--resume``, ``--resume-partial`` and other checkpoints named on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from medic_mm.checkpoints.reading import read_checkpoint
from medic_mm.errors import FileError, MissingFileError, UserError
from medic_mm.helpers import type_name

_HOOK = 'StrictWeightsHook'
_CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth')


def require_file(path: str | Path, argument: str) -> None:
    """Refuse what is not a file with something in it.

    Args:
        path: A local path.
        argument: What it was given by, for the sentence.

    Raises:
        MissingFileError: for a path that does not exist.
        FileError: for a folder, an address or an empty file.
    """
    where = Path(path)
    if '://' in str(path):
        raise FileError(
            f'{argument}: {str(path)!r} is an address: fetch the file and give its path'
        )
    if where.is_dir():
        newest = _newest(where)
        example = f', such as {newest}' if newest else ''
        raise FileError(f'{argument}: {where} is a folder: give a file{example}')
    if not where.is_file():
        raise MissingFileError(f'{argument}: checkpoint {str(path)!r} does not exist')
    if not where.stat().st_size:
        raise FileError(f'{argument}: checkpoint {where} is empty: give another one')


def set_resume(cfg: Config, resume: str) -> list[str]:
    """Set what the Runner resumes from.

    Args:
        cfg: A config with ``work_dir``, changed in place.
        resume: ``'auto'`` or a file.

    Returns:
        Lines for the log.

    Raises:
        UserError: for a path that cannot be resumed from.
    """
    cfg.resume = True
    cfg.load_from = None
    if resume != 'auto':
        require_file(resume, '--resume')
        cfg.load_from = resume
        return []
    # The Runner trusts last_checkpoint, which names an absolute path: a moved folder,
    # or a stop just before it was written, would end in an error or a new start.
    work_dir = Path(cfg.work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if Path(named).is_file():
        return []
    if newest := _newest(work_dir):
        cfg.load_from = str(newest)
        return [f'{pointer} names no checkpoint, {newest} is the newest.']
    if named:
        raise UserError(
            f'{pointer} names {named}, which does not exist, and {work_dir} holds no '
            'other checkpoint: use --resume PATH, or remove that file to start anew'
        )
    return []


def finished_run(cfg: Config) -> str:
    """A line that says that nothing is left to do; empty where there is something.

    Args:
        cfg: A config that resumes, after :func:`set_resume`.

    Raises:
        FileError: for a checkpoint that carries code or is damaged.
    """
    pointer = Path(cfg.work_dir, 'last_checkpoint')
    path = cfg.load_from or (pointer.is_file() and pointer.read_text().strip())
    if not path:
        return ''
    require_file(path, '--resume')
    meta = read_checkpoint(path, mmap=True).get('meta')
    for planned, key, unit in (
        ('max_epochs', 'epoch', 'epochs'),
        ('max_iters', 'iter', 'iterations'),
    ):
        most = cfg.train_cfg.get(planned)
        done = meta.get(key) if isinstance(meta, dict) else None
        if isinstance(most, int) and isinstance(done, int) and done >= most:
            return (
                f'Nothing is left to do: {path} has {done} of {most} {unit} '
                f'(train_cfg.{planned}).'
            )
    return ''


def set_strict_weights(cfg: Config, partial: Sequence[str] | None) -> None:
    """Let ``medic_mm.StrictWeightsHook`` check all that is loaded.

    Args:
        cfg: A config, changed in place; a hook that it has keeps its settings where
            ``partial`` is empty.
        partial: Beginnings of names that may differ; None where nothing may.
    """
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or ()),
    ]
    found = [hook for hook in hooks if hook and type_name(hook) == _HOOK]
    if not found:
        found = [dict(type=f'medic_mm.{_HOOK}')]
        cfg.default_hooks = {**(cfg.get('default_hooks') or {}), 'weights': found[0]}
        found = [cfg.default_hooks['weights']]
    for hook in found:
        if partial is None or partial:
            hook['partial'] = None if partial is None else list(partial)


def _newest(folder: Path) -> Path | None:
    found = [path for pattern in _CHECKPOINTS for path in folder.glob(pattern)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
