"""Losses: one pure function and one thin module a file; torch is all they need."""

from medic_mm.models.losses.cls_alignment import ClsAlignmentLoss, cls_alignment
from medic_mm.models.losses.relation import (
    relation_cross_entropy,
    relation_entropy,
    relation_kl,
    relation_logits,
    relation_mse,
)
from medic_mm.models.losses.token_distillation import (
    TokenDistillationLoss,
    normalise_target,
    token_distillation,
)

__all__ = [
    'ClsAlignmentLoss',
    'TokenDistillationLoss',
    'cls_alignment',
    'normalise_target',
    'relation_cross_entropy',
    'relation_entropy',
    'relation_kl',
    'relation_logits',
    'relation_mse',
    'token_distillation',
]
