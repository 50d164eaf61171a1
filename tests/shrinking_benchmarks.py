"""The benchmark configs at test size."""

from __future__ import annotations

from mmengine.config import Config
from shrinking import small_arch

WIDTH = 48
SIDE = 64


def shrink_benchmark(cfg: Config) -> Config:
    """Make a config small, in place; numbers of classes stay as they are."""
    if cfg.default_scope == 'mmseg':
        _shrink_segmentor(cfg)
    else:
        _shrink_classifier(cfg)
    return cfg


def _shrink_classifier(cfg: Config) -> None:
    model = cfg.model
    blocks = 2
    model.backbone.update(
        arch=small_arch(WIDTH, 3, blocks), img_size=4 * model.backbone.patch_size
    )
    image = model.backbone.img_size
    if 'frozen_stages' in model.backbone:
        model.backbone.frozen_stages = blocks
    widths = 1
    if model.get('neck'):
        widths = len(model.neck.features)
        model.neck.embed_dims = WIDTH
        if model.neck.get('num_layers', 1) > 1:
            model.neck.num_layers = model.head.num_layers = blocks
            model.backbone.out_indices = list(range(blocks))
    model.head.in_channels = WIDTH * widths
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            for key in ('scale', 'crop_size'):
                if key in transform:
                    transform[key] = image


def _shrink_segmentor(cfg: Config) -> None:
    model = cfg.model
    model.backbone.update(
        arch=small_arch(WIDTH, 3, 4), img_size=SIDE, out_indices=[0, 1, 2, 3]
    )
    model.data_preprocessor.size = (SIDE, SIDE)
    if model.data_preprocessor.get('test_cfg'):
        model.data_preprocessor.test_cfg.size = (SIDE, SIDE)
    model.neck.embed_dim = WIDTH
    model.decode_head.update(in_channels=[WIDTH] * 4, channels=16)
    model.auxiliary_head.update(in_channels=WIDTH, channels=16)
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(43, 43))
    for part in (model.neck, model.decode_head, model.auxiliary_head):
        part.norm_cfg = dict(part.norm_cfg, type='BN')
    scale = (4 * SIDE, SIDE) if 'ade20k' in cfg.filename else (SIDE, SIDE)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            if 'scale' in transform:
                transform['scale'] = scale
            if 'crop_size' in transform:
                transform['crop_size'] = (SIDE, SIDE)
