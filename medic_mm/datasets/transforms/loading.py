"""Loading that survives a broken file."""

from __future__ import annotations

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import MMLogger
from torch import Tensor

from medic_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadReadableImage(LoadImageFromFile):
    """The host's ``LoadImageFromFile``; a file that cannot be decoded is skipped.

    The data set then takes another image in its place. The file is named in the log,
    and ``SkippedImagesHook`` counts all of them. In a data set with ``test_mode=True``
    nothing can stand in for an image, so there the file is an error.

    Attributes:
        skipped: Shared bool ``(images,)``, True where an image was skipped; set by
            ``SkippedImagesHook`` before the workers start.
    """

    skipped: Tensor | None = None

    def transform(self, results: dict) -> dict | None:
        """Add ``img``; None for an unreadable file."""
        path = results['img_path']
        try:
            loaded = super().transform(results)
        except FileNotFoundError:
            raise
        except (OSError, AssertionError, AttributeError, cv2.error) as error:
            # the decoders answer a broken file with None or with one of these
            return self._skip(results, path, error)
        if loaded is None or loaded.get('img') is None:
            return self._skip(results, path, 'no image in it')
        return loaded

    def _skip(self, results: dict, path: str, reason: object) -> None:
        MMLogger.get_current_instance().warning(
            'Skipped the unreadable image %s (%s).', path, reason
        )
        if self.skipped is not None and 'sample_idx' in results:
            self.skipped[results['sample_idx']] = True
