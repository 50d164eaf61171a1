"""The way of weights from one layout of the field to another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from medic_mm.checkpoints.encoder import require_whole
from medic_mm.checkpoints.foreign import below_backbone, recognise, renamed_once
from medic_mm.checkpoints.layer_scale import fold_layer_scale
from medic_mm.checkpoints.layouts import (
    LAYOUTS,
    TARGETS,
    detect_layout,
    translate,
)
from medic_mm.checkpoints.surroundings import split_off
from medic_mm.errors import UserError
from medic_mm.helpers import listed

__all__ = [
    'LAYOUTS',
    'TARGETS',
    'Conversion',
    'convert_keys',
    'convert_weights',
    'detect_layout',
]

# In mmpretrain's names: what a target may do without. Any other weight without a place
# changes what the encoder computes.
_SPARE = ('neck.', 'backbone.ln2.', 'backbone.mask_token')


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
        state_dict: Weights of an encoder, and whatever stands beside it.
        source: Layout of ``state_dict``, one of :data:`LAYOUTS`; ``'auto'`` finds it
            and takes checkpoints of the released MEDiC, MaskDistill and TinyMIM and of
            Hugging Face's ViT and ViTMAE as well.
        target: Layout wanted, one of :data:`TARGETS`.

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
        state_dict: As in :func:`convert_keys`.
        source: Likewise.
        target: Likewise.
        whole: Name of the file, to require that it holds a whole encoder, in numbers
            that can be used; ``''`` converts parts as well.
    """
    _check('source', source, ('auto', *LAYOUTS))
    _check('target', target, TARGETS)
    weights = dict(state_dict)
    left_out: dict[str, str] = {}
    if source == 'auto':
        weights, source, left_out = recognise(weights)
    elif source == 'mmpretrain':
        weights = below_backbone(weights)
    weights, outside = split_off(weights, source)
    hub = _rename(weights, source)
    if not hub:
        raise UserError(
            f'nothing can be converted from {source!r} to {target!r}: there are '
            f'{listed(state_dict)}'
        )
    if whole:
        require_whole(hub, source, whole, decoder=target in ('mmpretrain', 'mae'))
    folded: tuple[str, ...] = ()
    if target == 'mae':
        hub, folded = fold_layer_scale(hub)
    converted, spare = _place(hub, target)
    back = {new: old for old, new in _names(weights, source).items()}
    left_out |= outside | {
        back[name]: f'{target} has no place for it' for name in spare
    }
    return Conversion(converted, source, target, left_out, folded)


def _names(weights: Mapping[str, Tensor], source: str) -> dict[str, str]:
    """Names in mmpretrain, which has a place for all that the others have."""
    names = {name: translate(name, source, 'mmpretrain') for name in weights}
    unknown = [name for name, new in names.items() if not new]
    if unknown:
        raise UserError(
            f'{len(unknown)} of {len(names)} names do not belong to a Vision '
            f'Transformer in the layout {source!r}: {listed(unknown)}'
        )
    return {name: str(new) for name, new in names.items()}


def _rename(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    renamed = renamed_once(
        (old, new, weights[old]) for old, new in _names(weights, source).items()
    )
    if source == 'open_clip':  # (D,) and (1 + L, D)
        for name in ('backbone.cls_token', 'backbone.pos_embed'):
            if name in renamed:
                value = renamed[name]
                renamed[name] = value.reshape(1, -1, value.shape[-1])
    return renamed


def _place(
    hub: Mapping[str, Tensor], target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the target's names, and the names that it can do without."""
    names = {name: translate(name, 'mmpretrain', target) for name in hub}
    homeless = [name for name, new in names.items() if not new]
    needed = [name for name in homeless if not name.startswith(_SPARE)]
    if needed:
        raise UserError(
            f'the layout {target!r} has no place for {listed(needed)}, without '
            'which the encoder computes something else'
        )
    return {new: hub[name] for name, new in names.items() if new}, homeless


def _check(setting: str, layout: str, known: tuple[str, ...]) -> None:
    if layout not in known:
        raise UserError(
            f'{setting}={layout!r} is no known layout: use one of {", ".join(known)}'
        )
