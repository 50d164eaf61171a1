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
from shrinking import GRID, shrink
from weight_decay import check_weight_decay

ROOT = Path(__file__).resolve().parents[2] / 'configs'
CONFIGS = sorted(p for p in ROOT.rglob('*.py') if '_base_' not in p.parts)
PRETRAINING = [p for p in CONFIGS if 'benchmarks' not in p.parts]
MEDIC = [p for p in PRETRAINING if p.stem.startswith(('medic', 'maskdistill', 'vit'))]
MEDIC = [p for p in MEDIC if p.parent.name != 'mimhd']
MIMHD = [p for p in PRETRAINING if p not in MEDIC and not p.stem.startswith('mae')]


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
    check_weight_decay(model, optimizer.optimizer)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logs = model.train_step(data, optimizer)
    weights = cfg.model.head.get('weights', {})
    terms = {k for k, weight in weights.items() if weight > 0}
    assert {k for k in logs if k.startswith('loss_')} == {f'loss_{k}' for k in terms}
    assert all(torch.isfinite(v).all() for v in logs.values())
    after = model.state_dict()
    assert not torch.equal(before['backbone.cls_token'], after['backbone.cls_token'])


@pytest.mark.parametrize('path', MIMHD, ids=title)
def test_mimhd_of_published_size_fits_together(path):
    """The whole model on the meta device: it refuses what does not fit."""
    cfg = Config.fromfile(path)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    assert model.with_neck == (cfg.model.head.weights.pixel > 0)
    # what gets no gradient, several processes must be told of
    stops = cfg.model.head.weights.pixel == 0
    assert cfg.get('find_unused_parameters', False) == stops


@pytest.mark.parametrize('path', MEDIC, ids=title)
def test_medic_of_published_size_fits_together(path):
    """Full-size parts on the meta device: widths, grids and masks agree."""
    cfg = Config.fromfile(path)
    teacher = cfg.model.target_generator.get('teacher', cfg.model.target_generator)
    side = cfg.model.backbone.img_size // cfg.model.backbone.patch_size
    masks = [t for t in cfg.train_dataloader.dataset.pipeline if 'Mask' in t['type']]
    masking = cfg.model.get('masking')
    if masking:
        schedule = masking.schedule
        assert schedule.clusters[0] + schedule.spread <= side * side
    assert [m['grid'] for m in masks] == ([] if masking else [side])
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


EVOLVED = {
    'em': dict(method='em'),
    'hc': dict(method='hierarchical'),
    'hcbias': dict(method='hierarchical', clustering=dict(spatial_bias=1.0)),
}


@pytest.mark.parametrize(
    ('rest', 'clusters'),
    [
        ('vit-base-p16_8xb256-amp-coslr-300e_in1k', (40, 10)),
        ('vit-tiny-p8_1xb100-coslr-20e_cifar10-64px', (16, 4)),
    ],
)
def test_evolved_masks_differ_in_what_their_names_say(rest, clusters):
    def load(name: str) -> dict:
        return Config.fromfile(ROOT / 'medic' / f'{name}_{rest}.py').to_dict()

    plain = load('medic')
    for name, method in EVOLVED.items():
        for percent in (40, 75):
            config = load(f'medic-evolved-{name}{percent}')
            masking = config['model'].pop('masking')
            assert masking == dict(
                type='medic_mm.EvolvedMasking',
                source='teacher',
                mask_ratio=percent / 100,
                schedule=dict(gamma=0.2, clusters=clusters, spread=2),
                **method,
            )
            # and in what masks from a teacher need; the rest is the plain recipe
            kept = config['model']['target_generator'].pop('attention', None)
            assert kept == ('cifar10' in rest or None)
            pipeline = plain['train_dataloader']['dataset']['pipeline']
            changed = config['train_dataloader']['dataset'].pop('pipeline')
            assert changed == [t for t in pipeline if 'Mask' not in t['type']]
            assert config['model'] == plain['model']
            assert config['optim_wrapper'] == plain['optim_wrapper']


def test_short_names_of_medic_are_what_they_stand_for():
    for size, name in dict(t='tiny', s='small', b='base', l='large').items():
        short = Config.fromfile(ROOT / 'medic' / f'vit{size}_300e.py')
        full = f'medic_vit-{name}-p16_8xb256-amp-coslr-300e_in1k.py'
        assert short.to_dict() == Config.fromfile(ROOT / 'medic' / full).to_dict()


def test_short_names_of_mimhd_are_what_they_stand_for():
    for size, name in dict(t='tiny', s='small', b='base').items():
        short = Config.fromfile(ROOT / 'mimhd' / f'vit{size}_100e.py')
        full = f'mimhd_vit-{name}-p16_8xb320-amp-coslr-100e_in1k.py'
        assert short.to_dict() == Config.fromfile(ROOT / 'mimhd' / full).to_dict()


@pytest.mark.parametrize('path', PRETRAINING, ids=title)
def test_every_file_says_what_it_is(path):
    assert path.read_text().startswith('# '), 'starts without a comment'
