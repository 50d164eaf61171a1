"""Importing this module registers every component of models.

Losses and head matchings need torch alone and stay importable without OpenMMLab, so
they are registered here and not where they are written.
"""

from medic_mm.datasets import data_preprocessor
from medic_mm.models import teachers
from medic_mm.models.losses import ClsAlignmentLoss, TokenDistillationLoss
from medic_mm.models.medic import algorithm as medic
from medic_mm.models.medic import backbone as masked_vit
from medic_mm.models.medic import evolved_masking
from medic_mm.models.medic import head as medic_head
from medic_mm.models.mimhd import algorithm as mimhd
from medic_mm.models.mimhd import backbone as relation_vit
from medic_mm.models.mimhd import decoder
from medic_mm.models.mimhd import head as mimhd_head
from medic_mm.models.mimhd.adaptive import AdaptiveMatching
from medic_mm.models.mimhd.matching import (
    AverageMatching,
    OneToOneMatching,
    RelationHeadMatching,
    SelectMatching,
)
from medic_mm.models.vit import probe
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
    'data_preprocessor',
    'decoder',
    'evolved_masking',
    'masked_vit',
    'medic',
    'medic_head',
    'mimhd',
    'mimhd_head',
    'probe',
    'relation_vit',
    'teachers',
]
