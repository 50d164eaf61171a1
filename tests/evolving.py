"""A tiny MEDiC that makes its own masks, for the tests of them."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from tiny import batch, medic_config

from medic_mm.engine.optimizers import LayerDecayOptimWrapperConstructor

SOURCES = ('teacher', 'student_ema', 'student_online')
SCHEDULE = dict(clusters=(8, 3), spread=2)
OPTIM = dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))


def settings(**changes) -> dict:
    changes = {'source': 'teacher', 'progress': (1, 4), **changes}
    return dict(type='medic_mm.EvolvedMasking', schedule=dict(SCHEDULE), **changes)


def build(weights: dict | None = None, encoding: str = 'sparse', **changes):
    """A tiny MEDiC that makes its own masks."""
    torch.manual_seed(0)
    config = medic_config(encoding, weights=weights)
    model = MODELS.build(dict(config, masking=settings(**changes)))
    model.init_weights()
    return model


def unmasked(seed: int = 0) -> dict:
    data = batch(seed=seed)
    for sample in data['data_samples']:
        del sample.mask
    return data


def losses_of(model, seed: int = 0) -> dict:
    data = model.data_preprocessor(unmasked(seed), True)
    return model(**data, mode='loss')


def train(model, steps: int = 3, **settings):
    optimizer = LayerDecayOptimWrapperConstructor({**OPTIM, **settings})(model)
    for step in range(steps):
        model.train_step(unmasked(step), optimizer)
    return optimizer
