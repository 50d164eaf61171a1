"""The way of weights from one layout of the field to another."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from medic_mm.checkpoints.layouts import (
    LAYOUTS,
    TARGETS,
    require_whole,
    translate,
)
from medic_mm.checkpoints.other_code_bases import (
    CLASSIFIER,
    below_backbone,
    recognise,
    renamed_once,
)
from medic_mm.errors import UserError
from medic_mm.helpers import listed

# In mmpretrain's names: what a target may do without. Any other weight without a place
# changes what the encoder computes.
_SPARE = ('neck.', 'backbone.ln2.', 'backbone.mask_token')

_NO_ENCODER = 'not part of the encoder'
# where the encoder lies in a whole model of a code base, and what is next to it
_WHOLE_MODELS = {
    'open_clip': ('visual.', 'text tower'),
    'mmseg': ('backbone.', _NO_ENCODER),
}

# a scale and the linear layer whose outputs it multiplies, in the layout 'mmpretrain'
_SCALES = {'attn.gamma1.weight': 'attn.proj', 'ffn.gamma2.weight': 'ffn.layers.1'}
_SCALE = re.compile(
    r'(backbone\.layers\.\d+\.)(' + '|'.join(map(re.escape, _SCALES)) + ')'
)


@dataclass(frozen=True)
class Conversion:
    """Converted weights, and what became of the rest.

    Attributes:
        weights: Under the target's names.
        source: The layout that was given or found.
        target: The layout of ``weights``.
        left_out: Names of the source that are not in ``weights``, each with the reason.
        folded: Names, as in mmpretrain, of LayerScales that are now part of their
            projections.
    """

    weights: dict[str, Tensor]
    source: str
    target: str
    left_out: dict[str, str]
    folded: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line to read: how much was converted, folded and left out."""
        parts = [f'{len(self.weights)} weights from {self.source} to {self.target}']
        if self.folded:
            parts.append(f'{len(self.folded)} LayerScales folded into projections')
        for reason, count in Counter(self.left_out.values()).items():
            names = [name for name, why in self.left_out.items() if why == reason]
            parts.append(f'left out {count} ({reason}): {listed(names)}')
        return '; '.join(parts)


def convert_keys(
    state_dict: Mapping[str, Tensor], source: str, target: str
) -> dict[str, Tensor]:
    """Rename the weights of a Vision Transformer from one code base to another.

    No value is copied or changed where the target has a place for it, so the way there
    and back gives the same bits: queries, keys and values are stacked alike everywhere.
    Position embeddings are carried over as they are, for the grids that the code bases
    would draw are transposed to each other. The exceptions: LayerScale is folded into
    its projections for ``'mae'``, and open_clip's class token and positions get their
    leading dimensions. What is left out goes to the log; :func:`convert_weights`
    returns it.

    Args:
        state_dict: Weights of an encoder, and whatever stands next to it.
        source: Layout of ``state_dict``, one of
            :data:`~medic_mm.checkpoints.layouts.LAYOUTS`; ``'auto'`` finds it and also
            takes checkpoints of the released MEDiC, MaskDistill and TinyMIM and of
            Hugging Face's ViT and ViTMAE.
        target: Layout wanted, one of :data:`~medic_mm.checkpoints.layouts.TARGETS`.

    Raises:
        ValueError: for an unknown layout, names that the source layout does not have,
            or weights of the encoder that the target has no place for.
    """
    done = convert_weights(state_dict, source, target)
    if done.left_out:
        logging.getLogger(__name__).warning(done.summary())
    return done.weights


def convert_weights(
    state_dict: Mapping[str, Tensor],
    source: str = 'auto',
    target: str = 'mmpretrain',
    whole: str = '',
) -> Conversion:
    """:func:`convert_keys` with a report of what was left out.

    Args:
        state_dict: As in :func:`convert_keys`, as are the next two.
        source: Layout of ``state_dict``.
        target: Layout wanted.
        whole: Name of the file, to require that it holds a whole encoder, in numbers
            that can be used; ``''`` converts parts as well.
    """
    _check_layout('source', source, ('auto', *LAYOUTS))
    _check_layout('target', target, TARGETS)
    weights = dict(state_dict)
    left_out: dict[str, str] = {}
    if source == 'auto':
        weights, source, left_out = recognise(weights)
    elif source == 'mmpretrain':
        weights = below_backbone(weights)
    weights, outside = _split_off(weights, source)
    names = _names_in_mmpretrain(weights, source)
    if not names:
        raise UserError(
            f'nothing can be converted from {source!r} to {target!r}: there are '
            f'{listed(state_dict)}'
        )
    found = renamed_once((old, new, weights[old]) for old, new in names.items())
    if source == 'open_clip':  # (D,) and (1 + L, D)
        for name in {'backbone.cls_token', 'backbone.pos_embed'} & set(found):
            found[name] = found[name].reshape(1, -1, found[name].shape[-1])
    if whole:
        require_whole(found, source, whole, decoder=target in ('mmpretrain', 'mae'))
    folded: tuple[str, ...] = ()
    if target == 'mae':
        found, folded = fold_layer_scale(found)
    converted, spare = _place(found, target)
    back = {new: old for old, new in names.items()}
    left_out |= outside | {
        back[name]: f'{target} has no place for it' for name in spare
    }
    return Conversion(converted, source, target, left_out, folded)


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
    scales = [found for found in map(_SCALE.fullmatch, weights) if found]
    for found in scales:
        scale = folded.pop(found[0]).float()
        linear = found[1] + _SCALES[found[2]]
        if f'{linear}.weight' not in folded:
            raise ValueError(f'{found[0]} has no {linear}.weight to be folded into')
        for kind, factor in (('weight', scale[:, None]), ('bias', scale)):
            value = folded.get(f'{linear}.{kind}')
            if value is not None:
                folded[f'{linear}.{kind}'] = (value.float() * factor).to(value.dtype)
    return folded, tuple(found[0] for found in scales)


def _check_layout(setting: str, layout: str, known: tuple[str, ...]) -> None:
    if layout not in known:
        names = ', '.join(known)
        raise UserError(
            f'{setting}={layout!r} is not a known layout: use one of {names}'
        )


def _split_off(
    weights: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Part the encoder (and an MAE's decoder) from the rest, which gets reasons."""
    prefix, outside = _WHOLE_MODELS.get(source, ('', ''))
    if not any(name.startswith(prefix) for name in weights):
        prefix = ''
    inside, rest = {}, {}
    for name, value in weights.items():
        short = name[len(prefix) :]
        below = name.startswith(prefix)
        if reason := _reason(short, value, source) if below else outside:
            rest[name] = reason
        else:
            inside[short] = value
    return inside, rest


def _reason(name: str, value: Tensor, source: str) -> str:
    """Why a weight is left out; empty where it is not."""
    if source == 'mmpretrain':
        known = name.startswith('backbone.') or translate(name, source, source)
        return '' if known else _NO_ENCODER
    if source == 'timm' and name.startswith('head.'):
        return CLASSIFIER
    if source == 'open_clip' and name == 'proj':
        return 'projection into the space of texts'
    if source == 'mmseg' and name.endswith('.relative_position_index'):
        return 'index that each network computes by itself'
    if source == 'mmseg' and name.endswith('.relative_position_bias_table'):
        if value.any():
            raise UserError(
                f'{name} was trained, and without this bias the encoder computes '
                'something else: no other layout has a place for it'
            )
        return 'bias of zeros'
    return ''


def _names_in_mmpretrain(weights: Mapping[str, Tensor], source: str) -> dict[str, str]:
    """Names in mmpretrain, which has a place for all that the others have."""
    names = {name: translate(name, source, 'mmpretrain') for name in weights}
    unknown = [name for name, new in names.items() if not new]
    if unknown:
        raise UserError(
            f'{len(unknown)} of {len(names)} names do not belong to a Vision '
            f'Transformer in the layout {source!r}: {listed(unknown)}'
        )
    return {name: str(new) for name, new in names.items()}


def _place(
    weights: Mapping[str, Tensor], target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the target's names, and the names that it can do without."""
    names = {name: translate(name, 'mmpretrain', target) for name in weights}
    homeless = [name for name, new in names.items() if not new]
    needed = [name for name in homeless if not name.startswith(_SPARE)]
    if needed:
        raise UserError(
            f'the layout {target!r} has no place for {listed(needed)}, without '
            'which the encoder computes something else'
        )
    return {new: weights[name] for name, new in names.items() if new}, homeless
