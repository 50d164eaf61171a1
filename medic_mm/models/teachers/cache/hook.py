"""Fills the cache of teacher outputs before training, or checks the one there."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import (
    barrier,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medic_mm.checks import require_number
from medic_mm.errors import DiskError, UserError
from medic_mm.helpers import unwrapped
from medic_mm.models.teachers.cache.cached import CachedTeacher
from medic_mm.models.teachers.cache.check import require_agreement
from medic_mm.models.teachers.cache.file import (
    TokenWriter,
    create_token_file,
    token_file_size,
)
from medic_mm.models.teachers.cache.key import cache_key, dataset_config, describe
from medic_mm.models.teachers.cache.space import make_folder, require_space
from medic_mm.models.teachers.cache.view_rows import (
    RowCollate,
    ViewRows,
    innermost_dataset,
)
from medic_mm.randomness import preserved_randomness
from medic_mm.registry import HOOKS

_SECONDS_BETWEEN_REPORTS = 10.0


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Has a cache ready for the model's ``CachedTeacher`` when training starts.

    A cache is a file ``<data set>-<key>.safetensors`` in ``cache_dir``, with a JSON
    file beside it that says what it was made from. The key is the SHA-256 over that:
    the teacher's fingerprint; the data set (config, number and records of images,
    sizes and times of files); the pipeline's config up to and with ``FixedView``
    (which fixes the image size as well), its views and seed; the student's
    normalisation; dtype and shape; attention where it is kept.

    Without a file of that key all views of all images go through the pipeline, the
    model's preprocessor and the teacher (in float32, whatever the precision of
    training, so that all runs can share the file); every process does an equal part.
    The file gets its name only when it is complete, on the disk and checked. An
    build that is killed leaves a ``.partial`` file, which is never used: the next one
    starts anew, and names it.

    The check, also of a file that was there, computes a few samples afresh. It finds
    changed data or weights that the key does not see, and random transforms outside
    ``FixedView``. Training draws the same random numbers with and without all this.

    Args:
        batch_size: Images a batch while filling. Default: that of training.
        num_workers: Data workers while filling. Default: as in training.
        verify_samples: Samples to check; 0 for none.

    Raises:
        UserError: where the model, the data or the config do not allow a cache.
        FileError: where a cache does not agree with the teacher.
        DiskError: where the disk is too small, or not shared by all processes.
    """

    priority = 'HIGH'

    def __init__(
        self,
        batch_size: int | None = None,
        num_workers: int | None = None,
        verify_samples: int = 8,
    ) -> None:
        if batch_size is not None:
            require_number(self, 'batch_size', batch_size, low=1, integer=True)
        if num_workers is not None:
            require_number(self, 'num_workers', num_workers, low=0, integer=True)
        require_number(self, 'verify_samples', verify_samples, low=0, integer=True)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.verify_samples = verify_samples

    def before_train(self, runner: Runner) -> None:
        """Fill or check the cache and attach it to the teacher."""
        model = unwrapped(runner.model)
        cached = find_cached_teacher(model)
        if cached is None:
            runner.logger.info('The model has no teacher: nothing to cache.')
            return
        dataset = innermost_dataset(runner.train_dataloader.dataset)
        with preserved_randomness(model.data_preprocessor.device):
            self._prepare(_Training(runner, model, cached, dataset))
        cached.teacher.network.cpu()  # not needed on the device any more

    def _prepare(self, training: _Training) -> None:
        cached, logger = training.cached, training.runner.logger
        views = ViewRows(training.dataset)
        config = dataset_config(training.runner.cfg)
        shared: list[Any] = [None, False]
        if is_main_process():
            shared[0] = describe(training.model, cached, training.dataset, config)
            shared[1] = _cache_path(cached, shared[0]).exists()
        broadcast_object_list(shared)
        description, exists = shared
        path, key = _cache_path(cached, description), cache_key(description)
        if not exists:
            with _new_file(path, description, logger) as partial:
                self._fill(partial, training)
                barrier()
                cached.attach(partial, key, views.num_views)
                self._verify(path, training, is_new=True)
        elif not path.exists():
            raise DiskError(
                f'cache_dir={str(cached.cache_dir)!r} of CachedTeacher is not on a '
                f'file system that all processes share, process {get_rank()} has no '
                f'{path}: set it to a folder that they all see'
            )
        else:
            logger.info('Teacher cache %s is there: no need to fill it.', path)
            cached.attach(path, key, views.num_views)
            self._verify(path, training, is_new=False)
        _report_gaps(cached.filled, views, logger)

    def _fill(self, path: Path, training: _Training) -> None:
        """Compute this process's part of the rows."""
        theirs = training.runner.train_dataloader
        workers = self.num_workers
        total = ViewRows(training.dataset).total
        rank, processes = get_rank(), get_world_size()
        rows = range(total * rank // processes, total * (rank + 1) // processes)
        loader = DataLoader(
            ViewRows(training.dataset, rows),
            batch_size=self.batch_size or theirs.batch_size or 64,
            num_workers=theirs.num_workers if workers is None else workers,
            collate_fn=RowCollate(theirs.collate_fn),
        )
        progress = _Progress(len(rows), training.runner.logger)
        with TokenWriter(path) as writer:
            for filled, data in loader:
                if data is not None:
                    writer.write(
                        filled, *training.encode(training.cached.teacher, data)
                    )
                progress.advance(loader.batch_size)

    def _verify(self, path: Path, training: _Training, is_new: bool) -> None:
        """Compare a few rows of the attached file, to be named ``path``, afresh."""
        candidates = training.cached.filled.nonzero()[:, 0].numpy()
        if not len(candidates):
            raise UserError(
                'none of the training images could be read, so that there is nothing '
                'to train on: check data_root and data_prefix of train_dataloader'
            )
        count = min(self.verify_samples, len(candidates))
        if count == 0:
            return
        generator = np.random.default_rng(training.runner.seed)
        rows = generator.choice(candidates, count, replace=False)
        views = ViewRows(training.dataset, rows)
        collate = RowCollate(training.runner.train_dataloader.collate_fn)
        found, data = collate([views[i] for i in range(count)])
        if len(found) < count:
            raise UserError(
                f'{count - len(found)} of {count} images that could be read when the '
                f'teacher cache {path} was filled cannot be read now: make them '
                'readable again'
                + (
                    ''
                    if is_new
                    else f', or remove {path.with_suffix(".*")} to fill '
                    'it again without them'
                )
            )
        stored = training.encode(training.cached, data)
        fresh = training.encode(training.cached.teacher, data)
        names = [divmod(row, views.num_views) for row in found]
        require_agreement(stored, fresh, names, path, is_new)
        training.runner.logger.info('%d rows of the teacher cache were checked.', count)


@dataclass
class _Training:
    runner: Runner
    model: nn.Module
    cached: CachedTeacher
    dataset: BaseDataset

    @torch.no_grad()
    def encode(self, teacher: nn.Module, data: Any) -> tuple[Tensor, Tensor | None]:
        """Batch of the data loader to what a cache keeps, as the algorithm does it.

        Tokens ``(B, 1 + L, D)``, and attention ``(B, L, L)`` where it is kept.
        """
        preprocessor = self.model.data_preprocessor
        batch = preprocessor(data, True)
        images, samples = batch['inputs'], batch['data_samples']
        if not isinstance(images, Tensor):
            raise UserError(
                'the teacher cache needs one image a sample, but the preprocessor '
                f'returns a {type(images).__name__}'
            )
        out = teacher(
            images,
            preprocessor.mean,
            preprocessor.std,
            samples,
            attention=self.cached.attention,
        )
        tokens = torch.cat([out.cls_token[:, None], out.patch_tokens], dim=1)
        return tokens, out.attention


def find_cached_teacher(model: nn.Module) -> CachedTeacher | None:
    """The model's ``CachedTeacher``; None where the model has no teacher at all.

    Raises:
        UserError: where the teacher is another one, or not loaded.
    """
    found = [part for part in model.modules() if isinstance(part, CachedTeacher)]
    teacher = getattr(model, 'target_generator', None)
    if not found and teacher is None:
        return None
    if len(found) != 1:
        raise UserError(
            f'TeacherCacheHook needs one CachedTeacher in the model but finds '
            f"{len(found)}: set target_generator=dict(type='medic_mm.CachedTeacher', "
            'teacher=dict(...)), or drop the hook'
        )
    if not found[0].ready:
        raise UserError(
            "the teacher of CachedTeacher has no weights: the model's init_weights "
            'must reach it'
        )
    return found[0]


def _cache_path(cached: CachedTeacher, description: dict[str, Any]) -> Path:
    name = f'{description["dataset_class"]}-{cache_key(description)[:24]}.safetensors'
    return cached.cache_dir / name


@contextmanager
def _new_file(path: Path, description: dict, logger: MMLogger) -> Iterator[Path]:
    """A laid-out file to fill; gets its name ``path`` if the body succeeds."""
    shared = [path.with_suffix(f'.{uuid.uuid4().hex[:8]}.partial')]
    broadcast_object_list(shared)
    partial = shared[0]
    if is_main_process():
        make_folder(path.parent)
    try:
        if is_main_process():
            _lay_out(partial, path, description, logger)
        barrier()
        yield partial
        barrier()
        if is_main_process():
            os.replace(partial, path)
            _describe_beside(path, description)
        barrier()
    finally:
        if is_main_process():
            partial.unlink(missing_ok=True)


def _lay_out(partial: Path, path: Path, description: dict, logger: MMLogger) -> None:
    """Create the file to fill, after saying how large it is."""
    layout = (
        description['shape'],
        description['dtype'],
        cache_key(description),
        'attention_shape' in description,
    )
    size, free = token_file_size(*layout), shutil.disk_usage(path.parent).free
    logger.info(
        'Filling the teacher cache %s: %d images x %d views, %d bytes (%.3g GB).',
        path,
        description['images'],
        description['num_views'],
        size,
        size / 1e9,
    )
    require_space(path.parent, size, free, logger)
    create_token_file(partial, *layout)


def _describe_beside(path: Path, description: dict[str, Any]) -> None:
    about = {
        'what': f'Outputs of a frozen teacher for fixed views, in {path.name}; '
        'medic_mm.TeacherCacheHook made them and uses them again.',
        'rows': 'Row i * num_views + v: view v of image i; class token, then patches.',
        'to_clear': 'Remove both files; the next training fills the cache again.',
        'bytes': path.stat().st_size,
        'key': cache_key(description),
        'made_from': description,
    }
    path.with_suffix('.json').write_text(json.dumps(about, indent=2) + '\n')


def _report_gaps(filled: Tensor, views: ViewRows, logger: MMLogger) -> None:
    missing = (~filled).nonzero()[:, 0].tolist()
    images = sorted({row // views.num_views for row in missing})
    if images:
        logger.warning(
            '%d images could not be read and have no teacher output, first: %s.',
            len(images),
            images[:5],
        )


class _Progress:
    """Log lines with the time left, some seconds apart."""

    def __init__(self, total: int, logger: MMLogger) -> None:
        self.total, self.logger, self.done = total, logger, 0
        self.start = self.last = time.monotonic()

    def advance(self, count: int) -> None:
        self.done = min(self.done + count, self.total)
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_REPORTS and self.done < self.total:
            return
        self.last = now
        left = (now - self.start) / self.done * (self.total - self.done)
        self.logger.info(
            'Teacher cache: %d of %d views (%d %%), %.0f s left.',
            self.done,
            self.total,
            100 * self.done // self.total,
            left,
        )
