"""Which student head learns which teacher head: one strategy a file; torch alone."""

from medic_mm.models.matching.adaptive import AdaptiveMatching
from medic_mm.models.matching.average import AverageMatching
from medic_mm.models.matching.base import HeadMatching, Matched
from medic_mm.models.matching.one_to_one import OneToOneMatching
from medic_mm.models.matching.relation_heads import RelationHeadMatching
from medic_mm.models.matching.select import SelectMatching

__all__ = [
    'AdaptiveMatching',
    'AverageMatching',
    'HeadMatching',
    'Matched',
    'OneToOneMatching',
    'RelationHeadMatching',
    'SelectMatching',
]
