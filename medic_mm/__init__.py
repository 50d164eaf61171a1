"""MEDiC and MIM-HD masked distillation for the OpenMMLab stack.

Importing the package is cheap: everything that touches torch, timm or a host library
(mmengine, mmpretrain) is imported by the rooms that use it, when they are used.

    import medic_mm
    model = medic_mm.load_model('work_dirs/run/epoch_300.pth')   # a timm ViT
    tokens = model.forward_features(model.transforms(image)[None])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medic_mm.version import __version__

if TYPE_CHECKING:
    from medic_mm.export.load import load_model

__all__ = ['__version__', 'load_model']


def __getattr__(name: str) -> Any:
    if name == 'load_model':
        from medic_mm.export.load import load_model

        return load_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
