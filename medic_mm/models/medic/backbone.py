"""mmpretrain's Vision Transformer that also takes a mask."""

from __future__ import annotations

import math

import torch
from mmengine.model import initialize
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from medic_mm.checks import require
from medic_mm.masking import PatchSplit, gather_tokens
from medic_mm.models.vit.arguments import check_vit, loads_a_file
from medic_mm.registry import MODELS


@MODELS.register_module()
class MaskedViT(VisionTransformer):
    """The host's ``VisionTransformer`` plus a mask, with the same state-dict keys.

    Without a mask it *is* the host's network. With one, it is the encoder of masked
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
        out_type: Output without a mask, as in the host; ``'raw'`` is all tokens. With a
            mask the output is always raw.
        **kwargs: The host's arguments (``arch``, ``img_size``, ``patch_size``,
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
        # past the host's own, which draws the position embedding over a loaded one
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
            Without a mask, the host's output. With one, a tuple of one tensor after the
            final norm: ``(B, 1 + V, D)`` (class token, then visible patches in
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
