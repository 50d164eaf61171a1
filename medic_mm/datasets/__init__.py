"""Data sets, and how image files are found and read.

:mod:`medic_mm.datasets.image_files` and :mod:`medic_mm.datasets.decoding` need no
OpenMMLab; the data sets are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medic_mm.datasets.embedded_shapes import EmbeddedShapes
    from medic_mm.datasets.image_folder import ImageFolder

__all__ = ['EmbeddedShapes', 'ImageFolder']


def __getattr__(name: str) -> Any:
    if name in __all__:
        from medic_mm.datasets import components

        return getattr(components, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
