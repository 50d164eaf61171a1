"""mmpretrain's Vision Transformer that also takes a mask, and its way to pixels."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.model import initialize
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.selfsup import BEiTPretrainViT
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from medic_mm.checks import require
from medic_mm.masking import PatchSplit, gather_tokens
from medic_mm.models.vit.arguments import check_vit, loads_a_file
from medic_mm.registry import MODELS


@MODELS.register_module()
class MaskedViT(VisionTransformer):
    """mmpretrain's ``VisionTransformer`` plus a mask, with the same state-dict keys.

    Without a mask it *is* mmpretrain's network. With one, it is the encoder of masked
    distillation: position embeddings are added to all patches first, then

    - ``encoding='sparse'`` runs the class token and the visible patches only (MAE and
      the released MEDiC code);
    - ``encoding='dense'`` runs all patches with a mask token at the hidden places
      (BEiT, MaskDistill). The mask token is an argument of :meth:`forward`: it belongs
      to pre-training, so it is not part of the backbone.

    Weights start as in BEiT: truncated normal of 0.02, and the output projections of
    block l divided by ``sqrt(2 l)`` (l from 1).

    Args:
        encoding: ``'sparse'`` or ``'dense'``.
        out_type: Output without a mask, as in mmpretrain; ``'raw'`` is all tokens, and
            always what comes with a mask.
        **kwargs: mmpretrain's arguments (``arch``, ``img_size``, ``patch_size``,
            ``drop_path_rate``, ``layer_scale_init_value``, ...).

    Raises:
        UserError: for an unknown encoding, and for arguments with which the network
            cannot run (:func:`medic_mm.models.vit.arguments.check_vit`).
    """

    def __init__(
        self,
        encoding: str = 'sparse',
        out_type: str = 'raw',
        **kwargs,
    ) -> None:
        require(
            encoding in ('sparse', 'dense'),
            f"encoding={encoding!r} of MaskedViT is unknown: use 'sparse' or 'dense'",
        )
        check_vit(type(self), kwargs)
        super().__init__(out_type=out_type, **kwargs)
        self.encoding = encoding

    def init_weights(self) -> None:
        """Draw BEiT's initial weights, unless a pre-trained file is to be loaded.

        Other settings of ``init_cfg`` are applied over them.
        """
        # past mmpretrain's own, which draws the position embedding over a loaded one
        # where init_cfg is a list
        super(VisionTransformer, self).init_weights()
        if loads_a_file(self.init_cfg):
            return
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for depth, layer in enumerate(self.layers, start=1):
            ffn = layer.ffn
            ffn_output = ffn.w3 if hasattr(ffn, 'w3') else ffn.layers[-2]  # SwiGLU: w3
            for linear in (layer.attn.proj, ffn_output):
                linear.weight.data.div_(math.sqrt(2 * depth))
        if self.init_cfg:
            initialize(self, self.init_cfg)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | PatchSplit | None = None,
        mask_token: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            x: Images ``(B, 3, H, W)``.
            mask: bool ``(B, L)``, True = hidden, the same number in every row, or a
                :class:`PatchSplit`, which on a GPU saves waiting for the count. None
                runs the plain network.
            mask_token: ``(1, 1, D)``, needed by the dense encoding.

        Returns:
            Without a mask, mmpretrain's output. With one, a tuple of one tensor after
            the final norm: ``(B, 1 + V, D)`` (class token, then visible patches in
            row-major order) if sparse, ``(B, 1 + L, D)`` if dense.

        Raises:
            ValueError: where the mask and the patch grid differ in length, or the mask
                token is missing.
        """
        if mask is None:
            return super().forward(x)
        split = mask if isinstance(mask, PatchSplit) else PatchSplit.from_mask(mask)
        patches, resolution = self.patch_embed(x)  # (B, L, D)
        if split.mask.shape != patches.shape[:2]:
            raise ValueError(
                f'the mask covers {tuple(split.mask.shape)} (images, patches) but the '
                f'images have {tuple(patches.shape[:2])}'
            )
        position = resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            resolution,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        if self.encoding == 'dense':
            if mask_token is None:
                raise ValueError("encoding='dense' needs a mask_token")
            hidden = split.mask.unsqueeze(-1)
            patches = torch.where(hidden, mask_token.to(patches.dtype), patches)
            patches = patches + position[:, 1:]
        else:
            patches = gather_tokens(patches + position[:, 1:], split.visible)
        cls_token = (self.cls_token + position[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([cls_token.to(patches.dtype), patches], dim=1)
        tokens = self.pre_norm(self.drop_after_pos(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        return (self.ln1(tokens) if self.final_norm else tokens,)


def takes_masks(model: nn.Module) -> None:
    """The rule that a backbone can be called with a mask."""
    backbone = model.backbone
    require(
        isinstance(backbone, (MaskedViT, BEiTPretrainViT)),
        f'backbone.type={type(backbone).__name__} does not take a mask: use '
        "'medic_mm.MaskedViT' or 'mmpretrain.BEiTPretrainViT'",
    )


def is_sparse(backbone: nn.Module) -> bool:
    """Whether the encoder sees visible patches only."""
    return getattr(backbone, 'encoding', 'dense') == 'sparse'


def mask_token(backbone: nn.Module) -> nn.Parameter | None:
    """The mask token ``(1, 1, D)`` of a dense :class:`MaskedViT`, which has none."""
    if not isinstance(backbone, MaskedViT) or is_sparse(backbone):
        return None
    return nn.Parameter(torch.zeros(1, 1, backbone.embed_dims))


def encode(model: Any, images: Tensor, split: PatchSplit) -> Tensor:
    """Masked images to tokens: ``(B, 1 + V, D)`` if sparse, else ``(B, 1 + L, D)``."""
    if isinstance(model.backbone, MaskedViT):
        return model.backbone(images, split, model.mask_token)[-1]
    return model.backbone(images, split.mask)[-1]


def decode(model: Any, tokens: Tensor, split: PatchSplit) -> Tensor:
    """Tokens to pixels ``(B, L, p * p * 3)``.

    A dense encoder has a token at every place already: the decoder adds none, unless it
    is to replace those of hidden places.
    """
    order, sparse = split.restore, is_sparse(model.backbone)
    if model.replace_mask_tokens and not sparse:
        seen = gather_tokens(tokens[:, 1:], split.visible)
        tokens = torch.cat([tokens[:, :1], seen], dim=1)
    elif not sparse:
        order = torch.arange(order.shape[1], device=tokens.device).expand_as(order)
    return model.neck(tokens, order)
