"""mmpretrain's Vision Transformer that also hands out one block's q, k and v."""

from __future__ import annotations

import torch
from mmengine.model import initialize
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import (
    build_2d_sincos_position_embedding,
    resize_pos_embed,
)
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.vit.arguments import (
    check_vit,
    loads_a_file,
    require_division,
)
from medic_mm.models.vit.qkv import QKV, split_qkv
from medic_mm.registry import MODELS


@MODELS.register_module()
class RelationViT(VisionTransformer):
    """mmpretrain's ``VisionTransformer`` plus :meth:`forward_relations`.

    State-dict keys and :meth:`forward` are mmpretrain's. Students of relation
    distillation (MIM-HD, TinyMIM) are this network on whole images.

    Weights start as in MAE and in the released TinyMIM code: position embeddings are
    sine-cosine and stay fixed during pre-training, every linear layer and the patch
    embedding are Xavier uniform, the class token is normal with 0.02. The embedding is
    laid out as in mmpretrain's ``MAEViT``, which equals the official MAE's with rows
    and columns exchanged; it is saved, so that a transfer finds it as it was.

    Args:
        block_heads: Number of heads of the last block, where it differs from the rest:
            TinyMIM's adaptive block, which takes the teacher's. The shapes of the
            weights do not show it, and fine-tuning with the plain architecture runs
            this block with its own number of heads again, as TinyMIM does.
        constant_drop_path: ``drop_path_rate`` holds in every block but the last, which
            has 0 (the released TinyMIM code), instead of mmpretrain's ramp from 0.
        out_type: Output of :meth:`forward`; ``'raw'`` is all tokens.
        layer_cfgs: Settings of all blocks (a dict) or of each (a sequence).
        **kwargs: mmpretrain's other arguments (``arch``, ``img_size``, ``patch_size``,
            ``drop_path_rate``, ``layer_scale_init_value``, ...).

    Raises:
        UserError: for arguments with which the network cannot run
            (:func:`medic_mm.models.vit.arguments.check_vit`).
    """

    def __init__(
        self,
        block_heads: int | None = None,
        constant_drop_path: bool = False,
        out_type: str = 'raw',
        layer_cfgs: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        settings = check_vit(type(self), {**kwargs, 'layer_cfgs': layer_cfgs})
        if layer_cfgs is None or isinstance(layer_cfgs, dict):
            layer_cfgs = [layer_cfgs or {}] * settings['num_layers']
        blocks = [dict(block) for block in layer_cfgs]  # copies, to be changed
        if constant_drop_path:
            rate = kwargs.get('drop_path_rate', 0.0)
            for block in blocks[:-1]:
                block['drop_path_rate'] = rate
            blocks[-1]['drop_path_rate'] = 0.0
        if block_heads is not None:
            require_number(self, 'block_heads', block_heads, low=1, integer=True)
            start = f'block_heads={block_heads} of RelationViT: {block_heads} heads'
            block = f'{start} in block {len(blocks)}'
            require_division(block, block_heads, settings['embed_dims'])
            blocks[-1]['num_heads'] = block_heads
        super().__init__(out_type=out_type, layer_cfgs=blocks, **kwargs)
        self.pos_embed.requires_grad = False

    def init_weights(self) -> None:
        """Draw MAE's initial weights, unless a pre-trained file is to be loaded.

        Other settings of ``init_cfg`` are applied over them.
        """
        # past mmpretrain's own, which draws the position embedding over a loaded one
        # where init_cfg is a list
        super(VisionTransformer, self).init_weights()
        if loads_a_file(self.init_cfg):
            return
        rows, columns = self.patch_resolution
        # mmpretrain's function counts column by column; exchanged, it counts row by row
        position = build_2d_sincos_position_embedding(
            (columns, rows), self.embed_dims, cls_token=True
        )
        self.pos_embed.data.copy_(position)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.init_cfg:
            initialize(self, self.init_cfg)

    def num_heads(self, block: int) -> int:
        """Number of heads of a block, counted from 1."""
        return self.layers[block - 1].attn.num_heads

    def forward_relations(
        self, x: Tensor, block: int, tail: bool = True
    ) -> tuple[Tensor | None, QKV]:
        """Encode whole images and return one block's queries, keys and values.

        Args:
            x: Images ``(B, 3, H, W)``.
            block: The block, counted from 1.
            tail: Go on to the end. Without it, nothing after the block's projection to
                queries, keys and values is run.

        Returns:
            Tokens ``(B, 1 + L, D)`` after the last block and the final norm, class
            token first (None without the tail), and the block's :class:`QKV`.

        Raises:
            UserError: where there is no such block.
        """
        if not 1 <= block <= self.num_layers:
            raise UserError(
                f'block={block} is out of range: RelationViT has blocks 1 to '
                f'{self.num_layers}'
            )
        tokens = self._embed(x)
        for number, layer in enumerate(self.layers, start=1):
            if number != block:
                tokens = layer(tokens)
                continue
            qkv = split_qkv(layer.attn.qkv(layer.ln1(tokens)), layer.attn.num_heads)
            if not tail:
                return None, qkv
            tokens = _finish_block(layer, tokens, qkv)
        return (self.ln1(tokens) if self.final_norm else tokens), qkv

    def _embed(self, x: Tensor) -> Tensor:
        """Images to the tokens that enter the first block: ``(B, 1 + L, D)``."""
        patches, resolution = self.patch_embed(x)
        cls_token = self.cls_token.expand(len(x), -1, -1)
        tokens = torch.cat((cls_token, patches), dim=1)
        tokens = tokens + resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            resolution,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        return self.pre_norm(self.drop_after_pos(tokens))


def _finish_block(layer: nn.Module, tokens: Tensor, qkv: QKV) -> Tensor:
    """The rest of a block, from its queries, keys and values on."""
    attn = layer.attn
    mixed = attn.scaled_dot_product_attention(
        qkv.query,
        qkv.key,
        qkv.value,
        dropout_p=attn.attn_drop if attn.training else 0.0,
    )
    mixed = mixed.transpose(1, 2).flatten(2)  # (B, M, N, d) -> (B, N, D)
    tokens = tokens + attn.out_drop(attn.gamma1(attn.proj_drop(attn.proj(mixed))))
    return layer.ffn(layer.ln2(tokens), identity=tokens)
