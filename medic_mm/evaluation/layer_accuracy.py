"""Accuracy of a probe on every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.evaluation.subset_accuracy import require_label
from medic_mm.registry import METRICS


@METRICS.register_module()
class LayerAccuracy(BaseMetric):
    """Top-1 accuracy in percent for each block, and the best one.

    For :class:`~medic_mm.models.vit.probe.LayerProbeHead`. The best block is
    chosen on the
    images that it is measured on, as BEiT's protocol does, so it flatters by the
    spread between blocks.
    """

    default_prefix = 'layer_accuracy'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note which blocks are right for each image."""
        for sample in data_samples:
            if 'layer_labels' not in sample:
                raise UserError(
                    'LayerAccuracy needs the labels of all blocks: use '
                    "head=dict(type='medic_mm.LayerProbeHead')"
                )
            require_label(sample, 'LayerAccuracy')
            self.results.append((sample['layer_labels'] == sample['gt_label']).cpu())

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """``top1_block_1`` and so on, ``best_top1``, ``best_block`` (from 1)."""
        if not results:
            raise UserError('LayerAccuracy has no images: the data set is empty')
        percent = torch.stack(results).double().mean(dim=0) * 100
        metrics = {f'top1_block_{i}': float(x) for i, x in enumerate(percent, start=1)}
        best = int(percent.argmax())
        return {**metrics, 'best_top1': float(percent[best]), 'best_block': best + 1}
