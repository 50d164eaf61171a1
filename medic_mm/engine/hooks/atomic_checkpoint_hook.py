"""Checkpoints that are whole or not there, whenever the process is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from medic_mm.checkpoints.saving import write_whole
from medic_mm.checks import require, require_number
from medic_mm.registry import HOOKS

_BACKEND = 'medic_mm_atomic'


@register_backend(_BACKEND)
class AtomicLocalBackend(LocalBackend):
    """Local files that are replaced as a whole, and not removed at once.

    ``put`` writes by :func:`~medic_mm.checkpoints.saving.write_whole`: a stop at any
    moment leaves the old file, or the new one. ``remove`` and ``rmtree`` note what is
    there; :meth:`remove_noted` removes it, unless it was replaced by something new in
    between.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[Path, os.stat_result]] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; makes the folder where there is none."""
        write_whole(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; makes the folder where there is none."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Note a file for :meth:`remove_noted`."""
        self._noted.append((Path(filepath), os.stat(filepath)))

    def rmtree(self, dir_path: str | Path) -> None:
        """Note a folder for :meth:`remove_noted`."""
        self._noted.append((Path(dir_path), os.stat(dir_path)))

    def remove_noted(self) -> None:
        """Remove what was noted and still is the same."""
        for path, noted in self._noted:
            if not path.exists() or not os.path.samestat(noted, path.stat()):
                continue
            if path.is_dir():
                super().rmtree(path)
            else:
                super().remove(path)
        self._noted.clear()


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, writing so that no stop can spoil a checkpoint.

    mmengine writes to the final path, and removes an old checkpoint (for
    ``max_keep_ckpts`` or ``save_best``) before the new one is written. Here a file
    appears under its name only when it is whole and on disk, and an old one goes only
    after that. Takes mmengine's arguments. Where ``out_dir``, ``backend_args`` or
    ``file_client_args`` name another storage, that storage is used in mmengine's way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # mmengine takes them all, and a NaN would save nothing
        given = {**dict(zip(('interval',), args, strict=False)), **kwargs}
        lowest = dict(interval=-1, max_keep_ckpts=-1, save_begin=0)
        for name, low in lowest.items():
            if name in given:
                require_number(self, name, given[name], low=low, integer=True)
                require(
                    given[name] != 0 or low == 0,
                    f'{name}=0 of {type(self).__name__} must be 1 or more, or -1 for '
                    'none',
                )
        super().__init__(*args, **kwargs)
        remote = self.out_dir is not None and '://' in str(self.out_dir)
        given = self.backend_args is not None or self.file_client_args is not None
        if not (remote or given):
            self.backend_args = {'backend': _BACKEND}

    def before_train(self, runner: Runner) -> None:
        """Set up; what a smaller ``max_keep_ckpts`` has too many goes now."""
        super().before_train(runner)
        self._remove_noted()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save when due, then remove what the new checkpoint replaces."""
        super().after_train_iter(runner, *args, **kwargs)
        self._remove_noted()

    def after_train_epoch(self, runner: Runner) -> None:
        """Save when due, then remove what the new checkpoint replaces."""
        super().after_train_epoch(runner)
        self._remove_noted()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best when due, then remove what it replaces."""
        super().after_val_epoch(runner, metrics)
        self._remove_noted()

    def _remove_noted(self) -> None:
        if isinstance(self.file_backend, AtomicLocalBackend):
            self.file_backend.remove_noted()
