"""What stands beside an encoder in a checkpoint: told apart, never dropped unsaid."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medic_mm.checkpoints.layouts import translate

_NO_ENCODER = 'not part of the encoder'
#: Why a fine-tuned network's last layer is left out.
CLASSIFIER = 'classifier'
_INDEX = 'index that each network computes by itself'

# where the encoder lies in a whole model of a code base, and what is beside it
_WHOLE_MODELS = {
    'open_clip': ('visual.', 'text tower'),
    'mmseg': ('backbone.', _NO_ENCODER),
}


def split_off(
    weights: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Part the encoder (and an MAE's decoder) from the rest of a checkpoint.

    Args:
        weights: In the layout ``source``.
        source: A layout.

    Returns:
        The weights that the layout names, and the names of the rest, each with a
        reason.

    Raises:
        ValueError: for a trained relative position bias in the layout ``'mmseg'``,
            which no other layout has.
    """
    prefix, outside = _WHOLE_MODELS.get(source, ('', ''))
    if not any(name.startswith(prefix) for name in weights):
        prefix = ''
    inside, rest = {}, {}
    for name, value in weights.items():
        short = name[len(prefix) :]
        below = name.startswith(prefix)
        reason = _reason(short, value, source) if below else outside
        if reason:
            rest[name] = reason
        else:
            inside[short] = value
    return inside, rest


def _reason(name: str, value: Tensor, source: str) -> str:
    """Why a weight is left out; empty where it is not."""
    if source == 'mmpretrain':
        known = name.startswith('backbone.') or translate(name, source, source)
        return '' if known else _NO_ENCODER
    if source == 'timm':
        return CLASSIFIER if name.startswith('head.') else ''
    if source == 'open_clip':
        return 'projection into the space of texts' if name == 'proj' else ''
    if source == 'mmseg':
        if name.endswith('.relative_position_index'):
            return _INDEX
        if name.endswith('.relative_position_bias_table'):
            if value.any():
                raise ValueError(
                    f'{name} was trained, and without this bias the encoder computes '
                    'something else: no other layout has a place for it'
                )
            return 'bias of zeros'
    return ''
