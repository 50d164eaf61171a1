"""Losses: pure functions and thin modules; torch is all they need."""

from medic_mm.models.losses.relation import (
    relation_cross_entropy,
    relation_entropy,
    relation_kl,
    relation_logits,
    relation_mse,
)
from medic_mm.models.losses.tokens import (
    ClsAlignmentLoss,
    TokenDistillationLoss,
    cls_alignment,
    mean_cosine,
    normalise_target,
    token_distillation,
)

__all__ = [
    'ClsAlignmentLoss',
    'TokenDistillationLoss',
    'cls_alignment',
    'mean_cosine',
    'normalise_target',
    'relation_cross_entropy',
    'relation_entropy',
    'relation_kl',
    'relation_logits',
    'relation_mse',
    'token_distillation',
]
