"""LayerScale, folded into the projections where a layout has no place for it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# a scale and the linear layer whose outputs it multiplies, in the layout 'mmpretrain'
_SCALES = {'attn.gamma1.weight': 'attn.proj', 'ffn.gamma2.weight': 'ffn.layers.1'}
_PATTERN = re.compile(
    r'(backbone\.layers\.\d+\.)(' + '|'.join(map(re.escape, _SCALES)) + ')'
)


def fold_layer_scale(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Multiply the rows of each scaled projection by its scale, and drop the scale.

    ``gamma * (W x + b) = (gamma W) x + gamma b``: the network computes the same, to the
    rounding of one product. Products are taken in fp32 and kept in the weights' type.

    Args:
        weights: In the layout ``'mmpretrain'``.

    Returns:
        The weights without scales, and the names of the scales that were folded.

    Raises:
        ValueError: where a scale has no projection.
    """
    folded = dict(weights)
    scales = []
    for name in weights:
        found = _PATTERN.fullmatch(name)
        if found is None:
            continue
        scale = folded.pop(name).float()
        linear = found[1] + _SCALES[found[2]]
        if f'{linear}.weight' not in folded:
            raise ValueError(f'{name} has no {linear}.weight to be folded into')
        for kind, factor in (('weight', scale[:, None]), ('bias', scale)):
            value = folded.get(f'{linear}.{kind}')
            if value is not None:
                folded[f'{linear}.{kind}'] = (value.float() * factor).to(value.dtype)
        scales.append(name)
    return folded, tuple(scales)
