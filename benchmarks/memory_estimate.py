"""Estimate of the GPU memory that a step of pre-training takes, counted on the CPU.

    python benchmarks/memory_estimate.py

For each size the full model is built with a random teacher and a forward pass of two
images is run under bfloat16 autocast. Counted are the bytes of weights, gradients and
AdamW's two moments (16 a trained parameter, 4 a frozen one), and those of all tensors
that the backward pass keeps, per image. The teacher's and the optimizer's temporary
tensors and the allocator's reserve are not in it: expect some 10-20 % more.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample

from medic_mm.masking import block_mask
from medic_mm.settings.needs import kept_bytes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'medic'
SIZES = {'ViT-Ti/16': 't', 'ViT-S/16': 's', 'ViT-B/16': 'b', 'ViT-L/16': 'l'}
BATCHES = (64, 128, 256)
IMAGES = 2


def build(size: str) -> torch.nn.Module:
    """The full-size algorithm of a config, with a random teacher."""
    cfg = Config.fromfile(CONFIGS / f'vit{size}_300e.py')
    init_default_scope(cfg.default_scope)
    cfg.model.target_generator.random_weights = True
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.target_generator.init_weights()
    return model


def batch() -> dict:
    """Random images with block masks."""
    masks = block_mask(IMAGES, (14, 14), 78).view(IMAGES, 14, 14).numpy()
    return dict(
        inputs=torch.randint(256, (IMAGES, 3, 224, 224), dtype=torch.uint8),
        data_samples=[DataSample().set_mask(mask) for mask in masks],
    )


def main() -> None:
    """Print the table."""
    print('| size | weights and optimizer | per image | 64 | 128 | 256 a GPU |')
    print('|---|---:|---:|---:|---:|---:|')
    for title, size in SIZES.items():
        model = build(size)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        teacher = sum(p.numel() for p in model.target_generator.network.parameters())
        # bfloat16 copies of the weights are kept for the backward pass, once
        copies = 2 * trained
        fixed = 16 * trained + 4 * teacher + copies
        each = (kept_bytes(model, batch(), torch.bfloat16) - copies) / IMAGES
        totals = ' | '.join(f'{(fixed + each * n) / 2**30:.0f} GB' for n in BATCHES)
        print(
            f'| {title} | {fixed / 2**30:.1f} GB | {each / 2**20:.0f} MB | {totals} |',
            flush=True,
        )
        del model
        gc.collect()


if __name__ == '__main__':
    main()
