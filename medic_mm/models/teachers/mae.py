"""A pre-trained MAE as the teacher: relations of one block, and its decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from medic_mm.checkpoints.strict import load_strictly, unusable
from medic_mm.checks import require, require_number
from medic_mm.errors import FileError, UserError
from medic_mm.models.teachers.base import FrozenTeacher
from medic_mm.models.teachers.loading import WeightFile, require_weights
from medic_mm.models.teachers.mae_files import (
    check_recorded_norm_pix,
    decide_norm_pix,
    full_file,
    known_file,
    read_mae_file,
    require_fit,
    settings_text,
)
from medic_mm.models.vit.arguments import (
    check_numbers,
    check_vit,
    require_division,
    require_size,
)
from medic_mm.models.vit.attention import ClassAttention, attention_maps
from medic_mm.models.vit.qkv import QKV, split_qkv
from medic_mm.randomness import seeded_construction
from medic_mm.registry import MODELS

# the statistics of ImageNet, with which the published MAEs were trained
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DECODER = dict(embed_dims=512, depth=8, num_heads=16)


@MODELS.register_module()
class MAETeacher(FrozenTeacher):
    """Queries, keys and values of one block of an MAE, and the MAE's frozen decoder.

    The whole image is encoded up to the chosen block; inside that block only the norm
    and the ``qkv`` layer are run, and no block after it. The decoder takes gradients
    through to its input and none for itself.

    Encoder and decoder are mmpretrain's, under the names of its MAE checkpoints.
    Position embeddings come from the file and are resized (bicubic) where the grid
    differs; they are never drawn anew.

    Args:
        arch: An architecture of mmpretrain's ``VisionTransformer``, name or dict.
        block: Number of the block, from 1. MIM-HD and TinyMIM take block 18 of 24.
        weights: A local file: official (``mae_pretrain_vit_large_full.pth``), of
            mmpretrain, or any with the names of either.
        input_size: Side of the square image that the network gets, in pixels.
        patch_size: Side of a patch in pixels. The official ViT-H has 14.
        decoder: ``dict(embed_dims=512, depth=8, num_heads=16)``, each of which may be
            left out; None builds and loads the encoder alone.
        norm_pix: Whether the decoder predicts pixels normalised within each patch. Must
            be given where the file's name does not say so.
        input_norm: See :class:`FrozenTeacher`; ``'teacher'`` normalises by the
            statistics of ImageNet, ``'student'`` suits an MAE that was trained with the
            student's own.
        random_weights: See :class:`FrozenTeacher`; ``weights`` are then not read.

    Raises:
        ValueError: for an unknown architecture or decoder setting, a ``block`` out of
            range, no ``weights``, a decoder wanted of a file known to have none, or a
            ``norm_pix`` that is unknown or contradicts a known file.
    """

    gives_attention = False
    gives_relations = True

    def __init__(
        self,
        arch: str | dict = 'large',
        block: int = 18,
        weights: str | None = None,
        input_size: int = 224,
        patch_size: int = 16,
        decoder: Mapping[str, Any] | None = None,
        norm_pix: bool | None = None,
        input_norm: str = 'teacher',
        random_weights: bool = False,
    ) -> None:
        require_weights(
            'MAETeacher', weights, random_weights, f'a copy of {full_file(arch)}'
        )
        check_numbers(self, block=block, input_size=input_size, patch_size=patch_size)
        known = known_file(weights)
        if decoder is not None and known is not None and not known.with_decoder:
            raise UserError(_without_decoder(arch, weights))
        needed = decoder is not None and not random_weights
        pixel_space = decide_norm_pix(weights, norm_pix, needed)
        with seeded_construction():
            network = _build(arch, input_size, patch_size, decoder)
            if random_weights:
                _draw_tokens(network)
        encoder = network['backbone']
        super().__init__(
            network=network,
            mean=MEAN,
            std=STD,
            embed_dims=encoder.embed_dims,
            patch_size=patch_size,
            input_size=input_size,
            input_norm=input_norm,
            random_weights=random_weights,
        )
        self.with_decoder = decoder is not None
        self.arch = arch
        self.weights = weights
        self.block = block
        self.num_heads = encoder.arch_settings['num_heads']
        self.num_tokens = 1 + math.prod(self.grid)
        self.norm_pix = pixel_space
        depth = len(encoder.layers)
        require(
            1 <= block <= depth,
            f'block={block} is out of range: arch={arch!r} has {depth} blocks, so use '
            f'1 to {depth}',
        )

    @property
    def decoder_dims(self) -> int | None:
        """Width of the decoder; None without one."""
        return self._decoder.decoder_embed.out_features if self.with_decoder else None

    @property
    def mask_token(self) -> Tensor:
        """The decoder's mask token, frozen: ``(1, 1, decoder_dims)``."""
        return self._decoder.mask_token

    def load_weights(self) -> None:
        """Load encoder and decoder from the file, strictly.

        Raises:
            FileError: where it is not an MAE, lacks the decoder, or does not fit.
        """
        file = read_mae_file(self.weights)
        state = file.state_dict
        if not self.with_decoder:
            state = {k: v for k, v in state.items() if k.startswith('backbone.')}
        elif not any(name.startswith('neck.') for name in state):
            raise FileError(_without_decoder(self.arch, self.weights))
        elif known_file(self.weights) is None:
            check_recorded_norm_pix(self.weights, self.norm_pix)
        require_fit(state, self.network.state_dict(), self.weights)
        load_strictly(
            self.network,
            self._resize_positions(file, state),
            str(self.weights),
            'Check that arch and decoder name the architecture of these weights',
        )

    def encode(self, images: Tensor, attention: bool) -> QKV:
        """Queries, keys and values of the chosen block, ``(B, M, 1 + L, d)`` each.

        Raises:
            UserError: where attention is asked for: see :meth:`patch_attention`.
        """
        if attention:
            raise UserError(
                'attention=True: MAETeacher returns queries, keys and values; use '
                'patch_attention or class_attention for the attention of its block'
            )
        return self._qkv(images)

    def encode_class_attention(self, images: Tensor) -> ClassAttention:
        """Attention of the chosen block's class token, every head."""
        qkv = self._qkv(images)
        rows = attention_maps(qkv.query[:, :, :1], qkv.key)[:, :, 0, 1:]
        return ClassAttention.from_rows(rows, self.grid, 'teacher', self.block)

    def embed_for_decoder(self, tokens: Tensor) -> Tensor:
        """Encoder tokens to the decoder's width: ``(B, N, D)`` -> ``(B, N, D')``."""
        return self._decoder_on(tokens.device).decoder_embed(tokens)

    def decode(self, tokens: Tensor) -> Tensor:
        """Pixels of all patches, with gradients to ``tokens``.

        Args:
            tokens: ``(B, 1 + L, decoder_dims)``, class token first, row-major, mask
                tokens in place; position embeddings are added here.

        Returns:
            ``(B, L, patch_size ** 2 * 3)``, in the pixel space of :attr:`norm_pix`.
        """
        decoder = self._decoder_on(tokens.device)
        tokens = tokens + decoder.decoder_pos_embed
        for layer in decoder.decoder_blocks:
            tokens = layer(tokens)
        # the class token goes before the last layer, which treats each token alone
        return decoder.decoder_pred(decoder.decoder_norm(tokens[:, 1:]))

    def extra_settings(self) -> tuple:
        """See :class:`FrozenTeacher`."""
        return (self.block, self.num_heads)

    @property
    def _decoder(self) -> MAEPretrainDecoder:
        if not self.with_decoder:
            raise FileError(
                'decoder=None leaves MAETeacher without a decoder: set '
                f'decoder=dict({settings_text(DECODER)}), which needs a file with one, '
                f'such as {full_file(self.arch)}'
            )
        return self.network['neck']

    def _decoder_on(self, device: torch.device) -> MAEPretrainDecoder:
        decoder = self._decoder
        self._require_weights()
        self._follow(device)
        return decoder

    def _qkv(self, images: Tensor) -> QKV:
        encoder, index = self.network['backbone'], self.block - 1
        patches, _ = encoder.patch_embed(images)  # (B, L, D)
        cls_token = encoder.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([cls_token, patches], dim=1) + encoder.pos_embed
        for layer in islice(encoder.layers, index):
            tokens = layer(tokens)
        last = encoder.layers[index]
        return split_qkv(last.attn.qkv(last.ln1(tokens)), self.num_heads)

    def _resize_positions(
        self, file: WeightFile, state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Position embeddings of encoder and decoder on the teacher's grid."""
        resized = dict(state)
        for name in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
            if name not in resized:
                continue
            positions = file.positions_on(self.native_grid, name, resized[name])
            if positions.dim() == 3 and not unusable(positions):
                side = math.isqrt(positions.shape[1] - 1)  # of a square by now
                positions = resize_pos_embed(positions, (side, side), self.grid)
            resized[name] = positions
        return resized


def _build(
    arch: str | dict, input_size: int, patch_size: int, decoder: Mapping | None
) -> nn.ModuleDict:
    given = dict(arch=arch, img_size=input_size, patch_size=patch_size)
    require_size('MAETeacher', input_size, patch_size)
    check_vit(VisionTransformer, given, 'MAETeacher')
    encoder = VisionTransformer(**given, out_type='raw')
    network = nn.ModuleDict({'backbone': encoder})
    if decoder is None:
        return network
    if unknown := sorted(set(decoder) - set(DECODER)):
        raise UserError(
            f'decoder has unknown settings {", ".join(unknown)}: there are '
            f'{", ".join(DECODER)}'
        )
    settings = {**DECODER, **decoder}
    for key, value in settings.items():
        require_number('MAETeacher', f'decoder.{key}', value, low=1, integer=True)
    heads, width = settings['num_heads'], settings['embed_dims']
    start = f'decoder of MAETeacher has num_heads={heads}, but {heads} heads'
    require_division(start, heads, width)
    network['neck'] = MAEPretrainDecoder(
        num_patches=math.prod(encoder.patch_resolution),
        patch_size=patch_size,
        embed_dim=encoder.embed_dims,
        decoder_embed_dim=settings['embed_dims'],
        decoder_depth=settings['depth'],
        decoder_num_heads=settings['num_heads'],
    )
    return network


def _draw_tokens(network: nn.Module) -> None:
    """Draw what mmpretrain leaves at zero, so that places differ."""
    for name, value in network.named_parameters():
        if name.endswith(('_token', 'pos_embed')):
            trunc_normal_(value, std=0.02)


def _without_decoder(arch: str | dict, weights: str | None) -> str:
    return (
        f'weights={str(weights)!r} has an encoder only, but decoder is set: use '
        f'{full_file(arch)}, which has both, or decoder=None'
    )
