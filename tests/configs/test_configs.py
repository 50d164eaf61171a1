"""Every config is loaded, its model built small, and one step of training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    DefaultScope,
)
from PIL import Image

ROOT = Path(__file__).resolve().parents[2] / 'configs'
CONFIGS = sorted(p for p in ROOT.rglob('*.py') if '_base_' not in p.parts)
PRETRAINING = [p for p in CONFIGS if 'benchmarks' not in p.parts]
GRID = 4


def shrink_teacher(teacher: dict, image: int) -> dict:
    """The same class of teacher, tiny and random, with a grid of 4x4."""
    if teacher['type'] == 'medic_mm.CachedTeacher':
        teacher = teacher['teacher']
    teacher.update(weights=None, random_weights=True)
    if teacher['type'] == 'medic_mm.TimmTeacher':
        teacher.update(model='test_vit', input_size=16 * GRID)
        return teacher
    vision = dict(image_size=image, layers=2, width=64, patch_size=image // GRID)
    text = dict(context_length=4, vocab_size=8, width=64, heads=1, layers=1)
    teacher['model'] = dict(embed_dim=8, vision_cfg=vision, text_cfg=text)
    teacher['input_size'] = image
    return teacher


def shrink(cfg: Config) -> Config:
    """Same components, grid of 4x4, widths of some tens."""
    model = cfg.model
    image = GRID * model.backbone.patch_size
    model.backbone.update(
        arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
        img_size=image,
    )
    if model.get('neck'):
        model.neck.update(
            num_patches=GRID**2,
            embed_dim=48,
            decoder_embed_dim=32,
            decoder_depth=1,
            decoder_num_heads=2,
        )
    model.head.update(embed_dims=48, target_dims=64)
    model.target_generator = shrink_teacher(model.target_generator, image)
    for transform in cfg.train_dataloader.dataset.pipeline:
        for part in [transform, *transform.get('transforms', [])]:
            if 'scale' in part:
                part['scale'] = image
            if 'grid' in part:
                part['grid'] = GRID
            if 'min_area' in part:
                part['min_area'] = 2
    return cfg


@pytest.fixture
def picture(tmp_path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    path = tmp_path / 'picture.jpg'
    Image.fromarray(pixels).save(path)
    return str(path)


def samples(cfg: Config, picture: str, count: int = 3) -> list[dict]:
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    from_file = 'LoadReadableImage' in str(cfg.train_dataloader.dataset.pipeline)
    start = dict(img_path=picture)
    if not from_file:  # data sets made on the fly have no file to load
        side = GRID * cfg.model.backbone.patch_size
        pixels = np.asarray(Image.open(picture).resize((side, side)))
        start = dict(img=pixels, ori_shape=(side, side))
    return [pipeline(dict(start, sample_idx=i, view=0)) for i in range(count)]


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', PRETRAINING, ids=title)
def test_one_step(path, picture):
    cfg = shrink(Config.fromfile(path))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model_cfg = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
        torch.manual_seed(0)
        model = MODELS.build(model_cfg)
        model.init_weights()
        data = default_collate(samples(cfg, picture))
        wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
        for key in ('dtype', 'loss_scale', 'accumulative_counts'):
            wrapper.pop(key, None)
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(type=wrapper.pop('constructor'), optim_wrapper_cfg=wrapper)
        )
        optimizer = constructor(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logs = model.train_step(data, optimizer)
    terms = {k for k, w in cfg.model.head.weights.items() if w > 0}
    assert {k for k in logs if k.startswith('loss_')} == {f'loss_{k}' for k in terms}
    assert all(torch.isfinite(v).all() for v in logs.values())
    after = model.state_dict()
    assert not torch.equal(before['backbone.cls_token'], after['backbone.cls_token'])


@pytest.mark.parametrize('path', PRETRAINING, ids=title)
def test_published_size_fits_together(path):
    """Full-size parts on the meta device: widths, grids and masks agree."""
    cfg = Config.fromfile(path)
    teacher = cfg.model.target_generator.get('teacher', cfg.model.target_generator)
    side = cfg.model.backbone.img_size // cfg.model.backbone.patch_size
    masks = [t for t in cfg.train_dataloader.dataset.pipeline if 'Mask' in t['type']]
    assert [m['grid'] for m in masks] == [side]
    if teacher.type == 'medic_mm.OpenCLIPTeacher' and isinstance(teacher.model, str):
        patch = {'ViT-B-16-quickgelu': 16}[teacher.model]
        assert teacher.input_size // patch == side
        assert cfg.model.head.target_dims == 768
    cfg.model.target_generator = None
    cfg.model.head.weights = dict(pixel=1.0) if cfg.model.get('neck') else None
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        backbone = MODELS.build(cfg.model.backbone)
        head = MODELS.build(cfg.model.head)
        assert head.embed_dims == backbone.embed_dims
        if cfg.model.get('neck'):
            neck = MODELS.build(cfg.model.neck)
            assert neck.decoder_embed.in_features == backbone.embed_dims
            assert neck.num_patches == side * side


def test_short_names_are_what_they_stand_for():
    for size, name in dict(t='tiny', s='small', b='base', l='large').items():
        short = Config.fromfile(ROOT / 'medic' / f'vit{size}_300e.py')
        full = f'medic_vit-{name}-p16_8xb256-amp-coslr-300e_in1k.py'
        assert short.to_dict() == Config.fromfile(ROOT / 'medic' / full).to_dict()


@pytest.mark.parametrize('path', PRETRAINING, ids=title)
def test_every_file_says_what_it_is(path):
    assert path.read_text().startswith('# '), 'starts without a comment'
