"""Registries of the package: children of mmengine's root, scope ``medic_mm``.

A config reaches our components as ``type='medic_mm.NAME'`` from any default scope
(``mmpretrain``, ``mmseg``, ...) without ``custom_imports``: mmengine imports this
file when it meets the scope, and each registry imports its ``locations`` when a
name is first looked up.
"""

try:
    from mmengine.registry import DATASETS as MMENGINE_DATASETS
    from mmengine.registry import HOOKS as MMENGINE_HOOKS
    from mmengine.registry import METRICS as MMENGINE_METRICS
    from mmengine.registry import MODELS as MMENGINE_MODELS
    from mmengine.registry import (
        OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    )
    from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
    from mmengine.registry import Registry
except ImportError as error:
    raise ImportError(
        'medic_mm needs a host: install either the OneDL packages '
        "(pip install 'medic_mm[onedl]') or the stock OpenMMLab packages "
        "(pip install 'medic_mm[openmmlab]'), never both, since they overwrite "
        'each other'
    ) from error

from medic_mm.checkpoints.openmmlab import register_readers

register_readers()


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope='medic_mm',
        locations=[f'medic_mm.{location}' for location in locations],
    )


MODELS = _child('model', MMENGINE_MODELS, 'models.components')
DATASETS = _child('dataset', MMENGINE_DATASETS, 'datasets.components')
TRANSFORMS = _child('transform', MMENGINE_TRANSFORMS, 'datasets.transforms')
HOOKS = _child('hook', MMENGINE_HOOKS, 'engine.hooks')
METRICS = _child('metric', MMENGINE_METRICS, 'evaluation.components')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor',
    MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    'engine.optimizers',
)
