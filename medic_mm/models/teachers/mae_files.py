"""Weight files of MAE: what is known of each, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.logging import MMLogger
from torch import Tensor

from medic_mm.checkpoints.conversion import convert_weights
from medic_mm.checkpoints.other_code_bases import CLASSIFIER
from medic_mm.checkpoints.reading import read_checkpoint
from medic_mm.errors import FileError, UserError
from medic_mm.helpers import listed
from medic_mm.models.teachers.loading import WeightFile, read_weight_file

_SIZES = {'b': 'base', 'base': 'base', 'h': 'huge', 'huge': 'huge'}


@dataclass(frozen=True)
class KnownFile:
    """What a published file is known to hold."""

    norm_pix: bool  # pixels normalised within each patch, in the run that it is from
    with_decoder: bool
    adversarial: bool = False  # trained with an extra GAN loss


_BY_NAME = (
    (r'mae_pretrain_vit_(base|large|huge)_full\.pth', KnownFile(True, True)),
    (r'mae_pretrain_vit_(base|large|huge)\.pth', KnownFile(True, False)),
    (r'mae_visualize_vit_(base|large|huge)\.pth', KnownFile(False, True)),
    (r'mae_visualize_vit_large_ganloss\.pth', KnownFile(False, True, True)),
    (r'mae_vit-.+\.pth', KnownFile(True, True)),  # mmpretrain
    # hashes at the end of mmpretrain's names of ViT-L: 400, 800 and 1600 epochs
    (r'.*(b11d0425|df72726a|cc7e98c9)\.pth', KnownFile(True, True)),
)


def known_file(weights: str | None) -> KnownFile | None:
    """What is known of a file by its name; None of an unknown one."""
    name = Path(weights).name if weights else ''
    for pattern, known in _BY_NAME:
        if re.fullmatch(pattern, name):
            return known
    return None


def full_file(arch: str | dict) -> str:
    """Name of the official file with encoder and decoder of an architecture."""
    size = _SIZES.get(arch.lower(), 'large') if isinstance(arch, str) else 'large'
    return f'mae_pretrain_vit_{size}_full.pth'


def decide_norm_pix(
    weights: str | None, given: bool | None, needed: bool
) -> bool | None:
    """The pixel space of a file's decoder, by its name or else by the setting.

    Raises:
        ValueError: where it is needed but neither says so, or the two differ.
    """
    known = known_file(weights)
    if known is None:
        if given is None and needed:
            raise UserError(
                f'norm_pix=None: the name {Path(weights or "").name!r} does not say '
                'whether its decoder predicts normalised pixels, so set norm_pix=True '
                '(as in mae_pretrain_vit_*_full.pth and in mmpretrain) or '
                'norm_pix=False (as in mae_visualize_vit_*.pth)'
            )
        return given
    if given is not None and given != known.norm_pix:
        raise UserError(
            f'norm_pix={given} contradicts {Path(weights or "").name}, which was '
            f'trained with norm_pix={known.norm_pix}: set that, or leave norm_pix out'
        )
    if needed and known.adversarial:
        MMLogger.get_current_instance().warning(
            '%s was trained with an extra GAN loss, so its pixels are not a plain '
            'regression: mae_visualize_vit_large.pth is the same without it.',
            weights,
        )
    return known.norm_pix


def check_recorded_norm_pix(weights: str, norm_pix: bool) -> None:
    """Refuse a setting that contradicts the config in the file, if it has one."""
    meta = read_checkpoint(weights, mmap=True).get('meta')
    config = meta.get('cfg') if isinstance(meta, dict) else None
    text = config if isinstance(config, str) else ''
    recorded = set(re.findall(r'\bnorm_pix=(True|False)\b', text))
    if recorded == {str(not norm_pix)}:
        raise FileError(
            f'norm_pix={norm_pix} contradicts {weights}, whose own config says '
            f'norm_pix={not norm_pix}: set that'
        )


def read_mae_file(weights: str) -> WeightFile:
    """An MAE, under mmpretrain's names (``backbone.*``, ``neck.*``), in fp32."""
    file = read_weight_file(weights)
    try:
        done = convert_weights(file.state_dict, 'auto', 'mmpretrain')
        tuned = [name for name, why in done.left_out.items() if why == CLASSIFIER]
        if tuned:
            raise UserError(f'it has a classifier: {listed(tuned)}')
        return replace(file, state_dict=done.weights)
    except ValueError as error:
        raise FileError(f'{file.path} holds no pre-trained MAE: {error}') from error


def require_fit(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], weights: str
) -> None:
    """Refuse a depth, width or patch size of a file that the settings do not name.

    ``state`` are the file's weights and ``own`` the network's, by mmpretrain's names.
    """
    found, wanted = _sizes(state), _sizes(own)
    for part, setting in (('encoder', 'arch'), ('decoder', 'decoder')):
        if part in found and found[part] != wanted.get(part):
            raise FileError(
                f'the {part} in {weights} has {settings_text(found[part])}, but the '
                f'settings of MAETeacher ask for {settings_text(wanted[part])}: set '
                f'{setting} (and patch_size) to what the file holds'
            )


def settings_text(settings: Mapping[str, int]) -> str:
    """Settings as they are written in a call."""
    return ', '.join(f'{name}={value}' for name, value in settings.items())


def _sizes(state: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """Depth, width and patch size that the weights have."""
    sizes = {}
    for part, blocks, width in (
        ('encoder', 'backbone.layers.', 'backbone.cls_token'),
        ('decoder', 'neck.decoder_blocks.', 'neck.mask_token'),
    ):
        if width in state:
            start = len(blocks)
            numbers = {k[start:].split('.')[0] for k in state if k.startswith(blocks)}
            sizes[part] = dict(depth=len(numbers), embed_dims=state[width].shape[-1])
    projection = state.get('backbone.patch_embed.projection.weight')
    if 'encoder' in sizes and projection is not None:
        sizes['encoder']['patch_size'] = projection.shape[-1]
    return sizes
