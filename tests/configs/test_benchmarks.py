"""Every benchmark config is loaded, made small, trained a step and evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    DefaultScope,
)
from mmengine.utils import import_modules_from_strings
from PIL import Image
from shrinking_benchmarks import shrink_benchmark
from weight_decay import check_weight_decay

ROOT = Path(__file__).resolve().parents[2] / 'configs' / 'benchmarks'
CONFIGS = sorted(ROOT.rglob('*.py'))
SEGMENTATION = [p for p in CONFIGS if p.parent.name == 'segmentation']
ADE20K = [p for p in SEGMENTATION if 'ade20k' in p.stem]
CLASSIFICATION = [p for p in CONFIGS if p not in SEGMENTATION]
# the others change data alone
NETWORKS = [p for p in CLASSIFICATION if '_test_' not in p.stem and 'pct' not in p.stem]
LAYER_SCALE = dict(medic=0.1, mimhd=0.0)


def title(path: Path) -> str:
    return path.stem


def load(path: Path) -> Config:
    if path in SEGMENTATION:
        pytest.importorskip('mmseg')
        import_modules_from_strings(['mmseg.models', 'mmseg.datasets'])
    return Config.fromfile(path)


def build_model(cfg: Config) -> torch.nn.Module:
    settings = dict(cfg.model)
    settings.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    return MODELS.build(settings)


def build_optimizer(cfg: Config, model: torch.nn.Module):
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    for key in ('dtype', 'loss_scale'):
        wrapper.pop(key, None)
    settings = wrapper.pop('paramwise_cfg', None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=wrapper.pop('constructor'),
            optim_wrapper_cfg=wrapper,
            paramwise_cfg=settings,
        )
    )
    return constructor(model)


@pytest.fixture
def picture(tmp_path) -> dict:
    """What a data set says of one image, for both hosts."""
    random = np.random.default_rng(0)
    image, mask = tmp_path / 'image.jpg', tmp_path / 'mask.png'
    pixels = random.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    classes = random.integers(0, 5, (9, 12), dtype=np.uint8)
    Image.fromarray(classes.repeat(10, axis=0).repeat(10, axis=1)).save(mask)
    return dict(
        img_path=str(image),
        seg_map_path=str(mask),
        label_map=None,
        seg_fields=[],
        sample_idx=0,
    )


def batch(cfg: Config, loader: dict, picture: dict, count: int) -> dict:
    segments = cfg.default_scope == 'mmseg'
    pipeline = Compose(loader.dataset.pipeline)
    reduces = segments and 'ADE20K' in loader.dataset.type
    found = [
        pipeline(dict(picture, gt_label=i, reduce_zero_label=reduces, seg_fields=[]))
        for i in range(count)
    ]
    return (pseudo_collate if segments else default_collate)(found)


@pytest.mark.parametrize('path', CONFIGS, ids=title)
def test_one_step_and_one_evaluation(path, picture):
    cfg = shrink_benchmark(load(path))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        cfg.model.backbone.init_cfg = None
        model = build_model(cfg)
        model.init_weights()
        optimizer = build_optimizer(cfg, model)
        check_weight_decay(model, optimizer.optimizer)
        before = {k: v.clone() for k, v in model.named_parameters()}
        data = batch(cfg, cfg.train_dataloader, picture, 4)
        logs = model.train_step(data, optimizer)
        assert torch.isfinite(logs['loss'])
        changed = {
            k for k, v in model.named_parameters() if not torch.equal(before[k], v)
        }
        frozen = 'linear' in path.stem
        assert any(k.startswith('backbone.') for k in changed) == (not frozen)
        assert any(not k.startswith('backbone.') for k in changed)

        data = batch(
            cfg, cfg.test_dataloader, picture, 2 if path not in SEGMENTATION else 1
        )
        model.eval()
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = dict(
            classes=[str(i) for i in range(num_classes(cfg))], label_map={}
        )
        with torch.no_grad():
            evaluator.process(model.test_step(data), data)
        metrics = evaluator.evaluate(2)
    assert metrics
    assert all(np.isfinite(v) or 'Acc' in k for k, v in metrics.items())
    wanted = cfg.default_hooks.checkpoint.save_best
    if 'test_in' not in path.stem:
        assert wanted == 'auto' or wanted in metrics


def num_classes(cfg: Config) -> int:
    head = cfg.model.get('decode_head') or cfg.model.head
    return head.num_classes


@pytest.mark.parametrize('path', NETWORKS, ids=title)
def test_classifier_of_published_size_fits_together(path):
    """Shapes through the whole network on the meta device."""
    cfg = load(path)
    side = cfg.model.backbone.img_size
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        model = build_model(cfg)
        images = torch.empty(2, 3, side, side)
        feats = model.extract_feat(images)
        scores = model.head(feats)
    assert scores.shape[-2:] == (2, cfg.data_preprocessor.num_classes)
    if 'linear' in path.stem:
        trained = [n for n, p in model.backbone.named_parameters() if p.requires_grad]
        assert trained == []


@pytest.mark.parametrize('path', SEGMENTATION, ids=title)
def test_segmentor_of_published_size_fits_together(path):
    cfg = load(path)
    size = cfg.model.data_preprocessor.size
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        model = build_model(cfg).eval()
        feats = model.extract_feat(torch.empty(1, 3, *size))
        scores = model.decode_head(feats)
    patches = size[0] // cfg.model.backbone.patch_size
    strides = [4, 8, 16, 32]
    assert [f.shape[-2] for f in feats] == [
        int(patches * cfg.model.backbone.patch_size / stride) for stride in strides
    ]
    assert scores.shape[1] == model.auxiliary_head.num_classes
    assert (
        scores.shape[1]
        == dict(ade20k=150, camvid=11)[path.stem.split('_')[-1].split('-')[0]]
    )


@pytest.mark.parametrize('path', ADE20K, ids=title)
def test_ade20k_learning_rate_of_each_layer(path):
    """At full size, against the formula lr * rate ** (13 - depth)."""
    cfg = load(path)
    lr, rate = (8e-5 if 'medic' in path.stem else 1e-4), 0.75
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    blocks = set()
    for name, parameter in model.named_parameters():
        where = name.split('.')
        if where[0] != 'backbone':
            depth = 13
        elif where[1] == 'layers':
            depth = int(where[2]) + 1
            blocks.add(depth)
        else:
            assert where[1] in ('cls_token', 'pos_embed', 'patch_embed')
            depth = 0
        assert rates[id(parameter)] == pytest.approx(lr * rate ** (13 - depth)), name
    assert blocks == set(range(1, 13))


@pytest.mark.parametrize('path', CONFIGS, ids=title)
def test_settings_that_hold_for_all(path):
    assert path.read_text().startswith('# '), 'starts without a comment'
    cfg = load(path)
    method = path.stem.split('_')[1].removesuffix('-pre')
    backbone = cfg.model.backbone
    assert backbone.layer_scale_init_value == LAYER_SCALE[method]
    assert dict(backbone.init_cfg) == dict(
        type='Pretrained', checkpoint=None, prefix='backbone.'
    )
    hooks = [hook['type'] for hook in cfg.custom_hooks]
    assert hooks[0] == 'medic_mm.PretrainedBackboneHook'
    assert ('medic_mm.SegmentationLabelsHook' in hooks) == (path in SEGMENTATION)
    for size, arch in dict(tiny='deit-tiny', small='deit-small', base='base').items():
        if f'vit-{size}-p16' in path.stem:
            assert backbone.arch == arch


@pytest.mark.parametrize('method', ['medic', 'mimhd'])
def test_layer_scale_is_that_of_pre_training(method):
    pre = Config.fromfile(
        ROOT.parent / method / dict(medic='vitb_300e.py', mimhd='vitb_100e.py')[method]
    )
    assert pre.model.backbone.get('layer_scale_init_value', 0.0) == LAYER_SCALE[method]
