"""Linear probes: frozen tokens to features, and a classifier on every block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.evaluation.features import check_feature_names
from medic_mm.registry import MODELS


@MODELS.register_module()
class ProbeNeck(BaseModule):
    """Class token, mean patch token or both, each column normalised over the batch.

    The BatchNorm has no weights, as in MAE's linear probe: it only brings the columns
    to one scale.

    Args:
        embed_dims: Width of the tokens.
        features: ``'cls'``, ``'mean'`` or both; both are joined in this order.
        num_layers: Number of blocks that the backbone gives out; each has its own
            statistics.
        layer_norm: Normalise tokens over their columns first, in all blocks but the
            last: those have no final norm of their own, and the weights of such a norm
            would be undone by the BatchNorm. The last block comes out of the backbone
            after its final norm, so it is left as it is.
        final_norm: Whether the last block comes after that norm. False where
            ``backbone.final_norm`` is, or where ``backbone.out_indices`` leaves the
            last block out: then ``layer_norm`` is for all blocks.
        num_extra_tokens: Tokens before the patch tokens; the first is the class token.

    Raises:
        UserError: for another feature, ``layer_norm`` without a block for it, or
            tokens of another form or number of blocks.
    """

    def __init__(
        self,
        embed_dims: int,
        features: Sequence[str] = ('cls',),
        num_layers: int = 1,
        layer_norm: bool = False,
        final_norm: bool = True,
        num_extra_tokens: int = 1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, low in (
            ('embed_dims', embed_dims, 1),
            ('num_layers', num_layers, 1),
            ('num_extra_tokens', num_extra_tokens, 0),
        ):
            require_number(self, name, value, low=low, integer=True)
        check_feature_names(features)
        if layer_norm and final_norm and num_layers == 1:
            raise UserError(
                'layer_norm=True of ProbeNeck is for the blocks before the last and '
                'num_layers=1 has none: set layer_norm=False, or final_norm=False '
                'where the block is not the last of the backbone'
            )
        self.features = tuple(features)
        self.num_normed = num_layers - final_norm if layer_norm else 0
        self.num_extra_tokens = num_extra_tokens
        width = embed_dims * len(self.features)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, affine=False, eps=1e-6) for _ in range(num_layers)
        )

    def forward(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One feature for each block: ``(B, 1 + L, D)`` to ``(B, D * features)``."""
        if len(outputs) != len(self.norms):
            raise UserError(
                f'num_layers={len(self.norms)} of ProbeNeck but the backbone gives '
                f'{len(outputs)} blocks: set num_layers or backbone.out_indices'
            )
        pairs = zip(self.norms, outputs, strict=True)
        return tuple(
            norm(self._pool(tokens, block < self.num_normed))
            for block, (norm, tokens) in enumerate(pairs)
        )

    def _pool(self, tokens: Tensor, layer_norm: bool) -> Tensor:
        if tokens.ndim != 3:
            raise UserError(
                f'ProbeNeck needs raw tokens (B, 1 + L, D), not {tuple(tokens.shape)}: '
                "set backbone.out_type='raw'"
            )
        if layer_norm:
            tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        found = {
            'cls': tokens[:, 0],
            'mean': tokens[:, self.num_extra_tokens :].mean(dim=1),
        }
        return torch.cat([found[name] for name in self.features], dim=1)


@MODELS.register_module()
class LayerProbeHead(BaseModule):
    """One linear classifier for each block of a frozen backbone.

    The classifiers share nothing, so training them together is training each alone.
    Predictions are those of the last block; the labels of all blocks are added for
    :class:`medic_mm.evaluation.layer_accuracy.LayerAccuracy`.

    Args:
        num_classes: Number of classes.
        in_channels: Width of the features of a block.
        num_layers: Number of blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_layers: int,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in (
            ('num_classes', num_classes),
            ('in_channels', in_channels),
            ('num_layers', num_layers),
        ):
            require_number(self, name, value, low=1, integer=True)
        self.num_classes = num_classes
        self.classifiers = nn.ModuleList(
            nn.Linear(in_channels, num_classes) for _ in range(num_layers)
        )

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Scores ``(num_layers, B, num_classes)`` before the softmax."""
        if len(feats) != len(self.classifiers):
            raise UserError(
                f'num_layers={len(self.classifiers)} of LayerProbeHead but the neck '
                f'gives {len(feats)} blocks: set both, and backbone.out_indices, to as '
                'many'
            )
        pairs = zip(self.classifiers, feats, strict=True)
        return torch.stack([classify(feature) for classify, feature in pairs])

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample]
    ) -> dict[str, Tensor]:
        """Cross entropy of each block, ``loss_block_1`` and so on."""
        scores = self(feats)
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return {
            f'loss_block_{i}': F.cross_entropy(found, labels.to(found.device))
            for i, found in enumerate(scores, start=1)
        }

    def predict(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list[DataSample | None] | None = None,
    ) -> list[DataSample]:
        """Add scores and labels to the samples, ``layer_labels`` for each block."""
        scores = self(feats)
        labels = scores.argmax(dim=-1).T  # (layers, B, C) -> (B, layers)
        last = F.softmax(scores[-1], dim=-1)
        given = data_samples or [None] * len(last)
        samples = [DataSample() if sample is None else sample for sample in given]
        for sample, score, of_layers in zip(samples, last, labels, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax(keepdim=True))
            sample.set_field(of_layers, 'layer_labels', dtype=Tensor)
        return samples
