"""Which parameters of an optimizer are decayed, by the names of layers' weights."""

from __future__ import annotations

import re

from torch import nn
from torch.optim import Optimizer

#: ``nn.Linear``'s, convolutions' and stacked linear layers' own matrices.
MATRIX = re.compile(r'(^|\.)weight\d*$')


def check_weight_decay(model: nn.Module, optimizer: Optimizer) -> None:
    """Matrices have the optimizer's decay, all else has none, each parameter once."""
    decay = optimizer.defaults['weight_decay']
    found: dict[int, float] = {}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            assert id(parameter) not in found, 'in two groups'
            found[id(parameter)] = group['weight_decay']
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(found) == {id(p) for p in trained.values()}
    for name, parameter in trained.items():
        is_matrix = MATRIX.search(name) and parameter.ndim > 1
        assert found[id(parameter)] == (decay if is_matrix else 0.0), name
