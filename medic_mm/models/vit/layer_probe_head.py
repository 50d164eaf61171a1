"""A linear classifier on every block at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.registry import MODELS


@MODELS.register_module()
class LayerProbeHead(BaseModule):
    """One linear classifier for each block of a frozen backbone.

    The classifiers share nothing, so training them together is training each alone.
    Predictions are those of the last block; the scores of all blocks stand beside them
    for :class:`medic_mm.evaluation.layer_accuracy.LayerAccuracy`.

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
