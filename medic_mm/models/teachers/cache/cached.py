"""A teacher that answers from disk instead of running again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.errors import FileError, UserError
from medic_mm.helpers import listed
from medic_mm.models.teachers.base import FrozenTeacher, TeacherOutput
from medic_mm.models.teachers.cache.file import DTYPES, CacheTable, read_cache
from medic_mm.models.vit.attention import ClassAttention
from medic_mm.registry import MODELS


@MODELS.register_module()
class CachedTeacher(FrozenTeacher):
    """Stands in for a frozen teacher and looks its outputs up by image and view.

    It takes the place of the teacher in the model; ``FixedView`` around the random
    augmentations makes an image look alike each time, and ``TeacherCacheHook`` fills
    the cache before training, or checks the one that is there::

        train_pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='medic_mm.FixedView', num_views=1, seed=0, transforms=[
                dict(type='RandomResizedCrop', scale=64),
                dict(type='RandomFlip', prob=0.5)]),
            dict(type='medic_mm.RandomMask', grid=8, mask_ratio=0.4),
            dict(type='PackInputs', meta_keys=('sample_idx', 'view')),
        ]
        model = dict(
            target_generator=dict(
                type='medic_mm.CachedTeacher',
                teacher=dict(type='medic_mm.TimmTeacher', ...),
                cache_dir='work_dirs/teacher_cache'))
        custom_hooks = [dict(type='medic_mm.TeacherCacheHook')]

    ``init_weights`` still loads the teacher's weights: they are part of the cache's
    key, and a few samples are computed afresh to check a cache. Afterwards the network
    rests on the CPU. Only training images are in the cache; for others call
    :attr:`teacher`. What a cache does not keep or set is the teacher's.

    Evolved masks need ``attention=True``. A cache with attention is a file of its own.

    Args:
        teacher: The frozen teacher, or its config.
        cache_dir: Folder of the caches, on a file system that all processes share.
        dtype: ``'float16'`` (values are rounded to 11 bits) or ``'float32'``.
        in_memory_gb: A cache of at most so many GB (1e9 bytes) is read into memory,
            in every process; a larger one stays on disk, memory-mapped.
        attention: Keep the teacher's attention ``(L, L)`` of each view too.

    Raises:
        UserError: for an unknown ``dtype``, or an ``in_memory_gb`` below 0.
    """

    def __init__(
        self,
        teacher: dict | FrozenTeacher,
        cache_dir: str = 'work_dirs/teacher_cache',
        dtype: str = 'float16',
        in_memory_gb: float = 2.0,
        attention: bool = False,
    ) -> None:
        # no network of its own: the teacher behind it has one
        nn.Module.__init__(self)
        require(
            dtype in DTYPES,
            f"dtype={dtype!r} of CachedTeacher is unknown: use 'float16' or 'float32'",
        )
        require_number(self, 'in_memory_gb', in_memory_gb, low=0, infinite=True)
        built = MODELS.build(teacher) if isinstance(teacher, dict) else teacher
        require(
            isinstance(built, FrozenTeacher) and built.uncached is built,
            f'teacher.type={type(built).__name__} of CachedTeacher is not a frozen '
            "teacher: use 'medic_mm.OpenCLIPTeacher' or 'medic_mm.TimmTeacher'",
        )
        require(
            not built.gives_relations,
            f'CachedTeacher keeps tokens, but {type(built).__name__} gives queries, '
            f"keys and values: use 'medic_mm.{type(built).__name__}' without a cache",
        )
        name, grid, native = type(built).__name__, tuple(built.grid), built.native_grid
        require(
            not attention or grid == native,
            f'attention=True of CachedTeacher needs the own grid of {name}, {native}, '
            f'but teacher.output_grid={grid}: leave it out, and set teacher.input_size '
            'to fit',
        )
        require(
            not attention or built.gives_attention,
            f'attention=True of CachedTeacher, but the attention of {name} cannot be '
            'read: use another model, or masks that need no attention',
        )
        # a tuple hides the teacher from nn.Module's registration
        self._held = (built,)
        self.cache_dir = Path(cache_dir).expanduser()
        self.dtype = dtype
        self.in_memory_gb = in_memory_gb
        self.attention = attention
        self._table: CacheTable | None = None
        self._path, self._num_views = Path(), 0

    def __getattr__(self, name: str) -> Any:
        """Sizes, grids, statistics and all else of the teacher."""
        if '_held' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.teacher, name)

    @property
    def gives_attention(self) -> bool:
        """Whether the cache keeps attention."""
        return self.attention

    @property
    def teacher(self) -> FrozenTeacher:
        """The teacher itself, for images that are not in the cache."""
        return self._held[0]

    uncached = teacher

    @property
    def network(self) -> nn.Module:
        """The teacher's network."""
        return self.teacher.network

    @property
    def filled(self) -> Tensor:
        """Bool ``(images * views,)``: which rows of the cache hold an output."""
        return self._attached().filled

    def init_weights(self) -> None:
        """Load the teacher's weights."""
        self.teacher.init_weights()

    def fingerprint(self) -> str:
        """The teacher's fingerprint."""
        return self.teacher.fingerprint()

    def class_attention(
        self, images: Tensor, mean: Tensor, std: Tensor
    ) -> ClassAttention:
        """The teacher's, computed afresh."""
        return self.teacher.class_attention(images, mean, std)

    def patch_attention(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The teacher's, computed afresh."""
        return self.teacher.patch_attention(images, mean, std)

    def attach(self, path: Path, key: str, num_views: int) -> None:
        """Answer from the file ``path``: row ``i * num_views + v`` is image i's view v.

        Raises:
            FileError: where the file is torn, has another key, lacks attention, or a
                row of it is damaged.
        """
        in_memory = path.stat().st_size <= self.in_memory_gb * 1e9
        table = read_cache(path, key, in_memory)
        if self.attention and 'attention' not in table.contents:
            raise FileError(
                f'the teacher cache {path} has no attention, but CachedTeacher has '
                'attention=True: remove it to build it anew'
            )
        self._table, self._path, self._num_views = table, path, num_views
        if in_memory:  # of a larger one, each row is checked when it is first read
            self._require_sound(table.filled.nonzero()[:, 0])

    def forward(
        self,
        images: Tensor,
        mean: Tensor,
        std: Tensor,
        data_samples: Sequence | None = None,
        attention: bool = False,
    ) -> TeacherOutput:
        """Look a batch up.

        Args:
            images: The student's batch; only its device is used.
            mean: Not used; the cache was made with the same.
            std: Not used.
            data_samples: The batch's data samples, with meta keys ``sample_idx`` and
                ``view``.
            attention: Also return the attention; needs the setting of this name.

        Returns:
            float32 tokens, and attention, on the device of ``images``.

        Raises:
            FileError: where no cache is attached, or an image is not in it or damaged.
            UserError: where attention is asked for that is not kept, or a meta key is
                missing.
        """
        if attention and not self.attention:
            raise UserError(
                'this CachedTeacher keeps no attention: set attention=True in its '
                'config (evolved masks need it); the next training fills a cache with '
                'it'
            )
        table = self._attached()
        index = self._index(data_samples)
        tokens = _gather(table.contents['tokens'], index, images.device)
        # contiguous each, as a teacher's own are
        out = TeacherOutput(tokens[:, 1:].float(), tokens[:, 0].float())
        if attention:
            maps = _gather(table.contents['attention'], index, images.device)
            out.attention = maps.float()
        return out

    def _attached(self) -> CacheTable:
        if self._table is None:
            raise FileError(
                'CachedTeacher has no cache yet: add '
                "dict(type='medic_mm.TeacherCacheHook') to custom_hooks, which fills "
                'it before training'
            )
        return self._table

    def _index(self, data_samples: Sequence | None) -> Tensor:
        """Rows of a batch, after making sure that they are there; on the CPU."""
        views, filled = self._num_views, self.filled
        try:
            rows = [s.sample_idx * views + s.view for s in data_samples or ()]
        except AttributeError:
            rows = []
        if not rows:
            raise UserError(
                'CachedTeacher needs the index and the view of each image: put '
                'FixedView around the random augmentations and set '
                "dict(type='PackInputs', meta_keys=('sample_idx', 'view'))"
            )
        index = torch.tensor(rows, dtype=torch.long)
        # all on the CPU, so these checks do not wait for the device
        if min(rows) < 0 or max(rows) >= len(filled):
            raise FileError(
                f'the batch has an image that is not among the {len(filled)} rows of '
                'the teacher cache: it holds readable training images only; for others '
                'call the teacher itself'
            )
        if not filled[index].all():
            image = rows[int((~filled[index]).nonzero()[0])] // views
            raise FileError(
                f'image {image} of the training set could not be read when the teacher '
                f'cache was filled, which holds readable training images only: remove '
                f'the cache in cache_dir={str(self.cache_dir)!r} to fill it again'
            )
        self._require_sound(index)
        return index

    def _require_sound(self, rows: Tensor) -> None:
        if wrong := self._attached().damaged(rows):
            names = (
                'image {} view {}'.format(*divmod(row, self._num_views))
                for row in wrong
            )
            raise FileError(
                f'the teacher cache {self._path} is damaged, its checksums differ for '
                f'{listed(names)}: remove {self._path.with_suffix(".*")} to fill it '
                'again'
            )


def _gather(values: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Rows of ``values`` on the device."""
    # pinned memory, so that the copy does not wait for the device
    pinned = device.type == 'cuda'
    shape = (len(index), *values.shape[1:])
    out = torch.empty(shape, dtype=values.dtype, pin_memory=pinned)
    torch.index_select(values, 0, index, out=out)
    return out.to(device, non_blocking=True)
