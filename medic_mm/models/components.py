"""Imports every component, so that the registry knows it; looked up by name in configs.

The losses need torch alone and stay importable without a host, so they are registered
here and not where they are written.
"""

from medic_mm.models import (
    algorithms,
    backbones,
    data_preprocessor,
    heads,
    necks,
    teachers,
)
from medic_mm.models.losses import ClsAlignmentLoss, TokenDistillationLoss
from medic_mm.registry import MODELS

for _loss in (ClsAlignmentLoss, TokenDistillationLoss):
    MODELS.register_module(module=_loss)

__all__ = [
    'algorithms',
    'backbones',
    'data_preprocessor',
    'heads',
    'necks',
    'teachers',
]
