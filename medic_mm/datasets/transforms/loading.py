"""Loading of images, with a count of those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from torch import Tensor

from medic_mm.checks import require, require_number
from medic_mm.datasets.decoding import (
    MAX_PIXELS,
    REASONS,
    UnreadableImage,
    decode_image,
    errors_of_file,
)
from medic_mm.registry import TRANSFORMS

#: So many unreadable images in a row end the run; MMEngine would try 1,000.
_MOST_IN_A_ROW = 100

#: Marks of images: 0 not read so far, 1 read, 2 and above: a reason why not.
READ, UNREADABLE = 1, 2


@TRANSFORMS.register_module()
class LoadReadableImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile`` with this package's decoding; counts broken files.

    See :mod:`medic_mm.datasets.decoding` for what is decoded and how.

    In training with ``SkippedImagesHook`` a file that cannot be decoded is marked, and
    the data set takes another image in its place. Everywhere else nothing can stand in
    for an image, so there the file is an error. What the machine refuses (permission,
    too many open files, a fault of the disk) is an error always.

    **Required Keys:**

    - img_path

    **Modified Keys:**

    - img (uint8 BGR, or float32 with ``to_float32``)
    - img_shape
    - ori_shape

    Args:
        max_pixels: Images of more pixels are not decoded, and count as unreadable.
        min_size: JPEG files may be decoded at 1/2, 1/4 or 1/8 of their size as long as
            both sides have so many pixels. None: whole.
        **kwargs: ``to_float32`` and ``backend_args`` of MMCV's.

    Attributes:
        marks: Shared uint8 ``(images,)``, one mark an image of the data set; set by
            ``SkippedImagesHook`` before the workers start.

    Raises:
        UserError: for settings of MMCV's that ask for other pixels.
    """

    marks: Tensor | None = None

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        min_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_number(self, 'max_pixels', max_pixels, low=1, integer=True)
        if min_size is not None:
            require_number(self, 'min_size', min_size, low=1, integer=True)
        super().__init__(**kwargs)
        require(
            self.color_type == 'color' and self.imdecode_backend == 'cv2',
            f'color_type={self.color_type!r}, imdecode_backend='
            f'{self.imdecode_backend!r}: LoadReadableImage gives colours by its own '
            'decoder; leave them out, or use mmcv.LoadImageFromFile',
        )
        self.max_pixels = max_pixels
        self.min_size = min_size
        self._in_a_row = 0

    def transform(self, results: dict) -> dict | None:
        """Add ``img``; None for an unreadable file that is counted."""
        path = results['img_path']
        try:
            with errors_of_file(path):
                image = decode_image(
                    self._read(path), self.max_pixels, self.min_size, channels='bgr'
                )
        except UnreadableImage as error:
            self._mark(results, error)
            return None
        self._in_a_row = 0
        if self.marks is not None and 'sample_idx' in results:
            # a view, which is ten times as fast to write to
            self.marks.numpy()[results['sample_idx']] = READ
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        if self.backend_args is None and '://' not in str(path):
            with open(path, 'rb') as file:
                return file.read()
        return fileio.get(path, backend_args=self.backend_args)

    def _mark(self, results: dict, error: UnreadableImage) -> None:
        """Count a file, where images are counted.

        Raises:
            UnreadableImage: where they are not, or too many come in a row.
        """
        if self.marks is None or 'sample_idx' not in results:
            raise UnreadableImage(
                f'{error}; repair or remove the file (only training with '
                'medic_mm.SkippedImagesHook counts such files and goes on)',
                error.reason,
            ) from error
        self.marks[results['sample_idx']] = UNREADABLE + REASONS.index(error.reason)
        self._in_a_row += 1
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise UnreadableImage(
                f'{self._in_a_row} images in a row cannot be read, the last: {error}',
                error.reason,
            ) from error

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(max_pixels={self.max_pixels}, '
            f'min_size={self.min_size}, to_float32={self.to_float32}, '
            f'backend_args={self.backend_args})'
        )


def image_loaders(steps: Any) -> Iterator[LoadReadableImage]:
    """The loading transforms of a pipeline, also those inside of other transforms."""
    seen: set[int] = set()
    waiting = [steps]
    while waiting:
        step = waiting.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        if isinstance(step, LoadReadableImage):
            yield step
        elif isinstance(step, (list, tuple)):
            waiting += step
        elif callable(step) and hasattr(step, '__dict__'):
            inner = vars(step).values()
            waiting += [x for x in inner if isinstance(x, (list, tuple)) or callable(x)]
