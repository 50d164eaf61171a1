"""Imports every component, so that the registry knows it; looked up by name in configs.

Losses and head matchings need torch alone and stay importable without a host, so they
are registered here and not where they are written.
"""

from medic_mm.models import (
    algorithms,
    backbones,
    data_preprocessor,
    evolved_masking,
    heads,
    necks,
    teachers,
)
from medic_mm.models.losses import ClsAlignmentLoss, TokenDistillationLoss
from medic_mm.models.matching import (
    AdaptiveMatching,
    AverageMatching,
    OneToOneMatching,
    RelationHeadMatching,
    SelectMatching,
)
from medic_mm.registry import MODELS

for _component in (
    ClsAlignmentLoss,
    TokenDistillationLoss,
    AdaptiveMatching,
    AverageMatching,
    OneToOneMatching,
    RelationHeadMatching,
    SelectMatching,
):
    MODELS.register_module(module=_component)

__all__ = [
    'algorithms',
    'backbones',
    'data_preprocessor',
    'evolved_masking',
    'heads',
    'necks',
    'teachers',
]
