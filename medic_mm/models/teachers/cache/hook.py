"""Fills the cache of teacher outputs before training, or checks the one there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial as partial_function
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
from medic_mm.errors import DiskError, FileError, UserError
from medic_mm.helpers import unwrapped
from medic_mm.models.teachers.cache.cached import CachedTeacher
from medic_mm.models.teachers.cache.file import (
    VERSION,
    Layout,
    RowWriter,
    read_cache,
    version_of,
)
from medic_mm.models.teachers.cache.fill import new_cache, with_progress
from medic_mm.models.teachers.cache.views import (
    ViewRows,
    collate_rows,
    dataset_config,
    describe,
    innermost_dataset,
    layout_of,
)
from medic_mm.randomness import preserved_randomness
from medic_mm.registry import HOOKS

#: Largest deviation of a recomputed value, as a part of itself plus the root mean
#: square of its token or row of attention. Wide enough for float16 and for another
#: device's reduced precision, far too narrow for another crop or other weights.
TOLERANCE = 0.01
#: The step between the smallest values of float16. A patch that looks at the class
#: token alone has nothing but such values for the patches.
SMALLEST_STEP = 2.0**-24


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Has a cache ready for the model's ``CachedTeacher`` when training starts.

    A cache is a file ``<data set>-<key>.safetensors`` in ``cache_dir``, with a JSON
    file of what it was made from. The key is the SHA-256 over that, see
    :func:`~medic_mm.models.teachers.cache.views.describe`.

    Without a file of that key all views of all images go through the pipeline, the
    model's preprocessor and the teacher (in float32, whatever the precision of
    training, so that all runs can share the file); every process does an equal part.
    The file gets its name only when it is complete, on the disk and checked. A fill
    that is killed leaves a ``.partial`` file, and the next one goes on where it
    stopped. A file of an earlier format is filled anew.

    The check, also of a file that was there, computes a few samples afresh. It finds
    changed data or weights that the key does not see, and random transforms outside
    ``FixedView``. Each row has a checksum as well, against damage on the disk.
    Training draws the same random numbers with and without all this.

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
        cached = getattr(model, 'target_generator', None)
        if cached is None:
            runner.logger.info('The model has no teacher: nothing to cache.')
            return
        if not isinstance(cached, CachedTeacher):
            raise UserError(
                f'TeacherCacheHook needs one CachedTeacher in the model, but '
                f'target_generator is {type(cached).__name__}: set target_generator='
                "dict(type='medic_mm.CachedTeacher', teacher=dict(...)), or drop the "
                'hook'
            )
        dataset = innermost_dataset(runner.train_dataloader.dataset)
        with preserved_randomness(model.data_preprocessor.device):
            self._prepare(_Training(runner, model, cached, dataset))
        cached.teacher.network.cpu()  # not needed on the device any more

    def _prepare(self, training: _Training) -> None:
        cached, logger = training.cached, training.runner.logger
        shared: list[Any] = [None, False]
        if is_main_process():
            config = dataset_config(training.runner.cfg)
            shared[0] = describe(training.model, cached, training.dataset, config)
            path = cached.cache_dir / _file_name(shared[0])
            shared[1] = path.exists() and _has_present_format(path, logger)
        broadcast_object_list(shared)
        description, exists = shared
        layout, views = layout_of(description), description['num_views']
        path = cached.cache_dir / _file_name(description)
        if not exists:
            self._create(path, description, training)
        elif not path.exists():
            raise DiskError(
                f'cache_dir={str(cached.cache_dir)!r} of CachedTeacher is not on a '
                f'file system that all processes share, process {get_rank()} has no '
                f'{path}: set it to a folder that they all see'
            )
        else:
            logger.info('Teacher cache %s is there: no need to fill it.', path)
            cached.attach(path, layout.key, views)
            self._verify(path, training, is_new=False)
        missing = (~cached.filled).nonzero()[:, 0].tolist()
        if images := sorted({row // views for row in missing}):
            logger.warning(
                f'{len(images)} images could not be read and have no teacher output, '
                f'first: {images[:5]}.'
            )

    def _create(self, path: Path, description: dict, training: _Training) -> None:
        """Fill a file, check it, and give it the name ``path``."""
        cached, logger = training.cached, training.runner.logger
        layout = layout_of(description)
        size, images = layout.header()[2], description['images']
        logger.info(
            f'Filling the teacher cache {path}: {images} images x '
            f'{description["num_views"]} views, {size} bytes ({size / 1e9:.3g} GB).'
        )
        with new_cache(path, layout, description, logger) as partial:
            self._fill(partial, layout, training)
            barrier()
            cached.attach(partial, layout.key, description['num_views'])
            try:
                self._verify(path, training, is_new=True)
            except UserError:
                partial.unlink(missing_ok=True)  # what it holds is of no use
                raise

    def _fill(self, path: Path, layout: Layout, training: _Training) -> None:
        """Compute this process's part of the rows that are missing."""
        theirs = training.runner.train_dataloader
        workers = self.num_workers
        missing = (~read_cache(path, layout.key, False).filled).nonzero()[:, 0].tolist()
        barrier()  # all have looked before one writes
        rank, processes = get_rank(), get_world_size()
        count = len(missing)
        rows = missing[count * rank // processes : count * (rank + 1) // processes]
        if not rows:
            return
        loader = DataLoader(
            ViewRows(training.dataset, rows),
            batch_size=self.batch_size or theirs.batch_size or 64,
            num_workers=theirs.num_workers if workers is None else workers,
            collate_fn=partial_function(collate_rows, theirs.collate_fn),
        )
        batches = with_progress(loader, len(rows), training.runner.logger)
        with RowWriter(path, layout) as writer:
            for found, data in batches:
                if data is not None:
                    writer.write(found, training.encode(training.cached.teacher, data))

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
        items = [views[i] for i in range(count)]
        found, data = collate_rows(training.runner.train_dataloader.collate_fn, items)
        again = f'remove {path.with_suffix(".*")} to fill it again'
        if len(found) < count:
            raise UserError(
                f'{count - len(found)} of {count} images that could be read when the '
                f'teacher cache {path} was filled cannot be read now: make them '
                'readable again' + ('' if is_new else f', or {again} without them')
            )
        stored = training.encode(training.cached, data)
        fresh = training.encode(training.cached.teacher, data)
        agrees = [_agree(stored[name], fresh[name].float()) for name in stored]
        wrong = [
            'image {} view {}'.format(*divmod(row, views.num_views))
            for row, *same in zip(found, *agrees, strict=True)
            if not all(same)
        ]
        outside = 'a random transform stands outside FixedView'
        if wrong:
            raise FileError(
                f'the teacher cache {path} disagrees with the teacher for '
                f'{", ".join(wrong)} ({len(wrong)} of {count} checked): '
                + (
                    f'{outside}: move it inside'
                    if is_new
                    else f'{again}; if that does not help, {outside}'
                )
            )
        training.runner.logger.info('%d rows of the teacher cache were checked.', count)


@dataclass
class _Training:
    runner: Runner
    model: nn.Module
    cached: CachedTeacher
    dataset: BaseDataset

    @torch.no_grad()
    def encode(self, teacher: nn.Module, data: Any) -> dict[str, Tensor]:
        """Batch of the data loader to what a cache keeps, as the algorithm does it.

        ``tokens (B, 1 + L, D)``, and ``attention (B, L, L)`` where it is kept.
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
        kept = {} if out.attention is None else {'attention': out.attention}
        return {'tokens': tokens, **kept}


def _file_name(description: dict[str, Any]) -> str:
    key = layout_of(description).key
    return f'{description["dataset_class"]}-{key[:24]}.safetensors'


def _has_present_format(path: Path, logger: MMLogger) -> bool:
    version = version_of(path)
    if version != VERSION:
        logger.warning(
            f'The teacher cache {path} has format {version}, but this version of '
            f'medic_mm uses format {VERSION}: it is filled anew.'
        )
    return version == VERSION


def _agree(stored: Tensor, fresh: Tensor) -> list[bool]:
    """For each of the B, whether all values are within the tolerance."""
    scale = fresh.abs() + fresh.square().mean(-1, keepdim=True).sqrt()
    # written so that a NaN counts as a deviation
    within = (stored - fresh).abs() <= TOLERANCE * scale + SMALLEST_STEP
    return within.flatten(1).all(1).tolist()
