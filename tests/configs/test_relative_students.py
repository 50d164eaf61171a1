"""From MaskDistill and MEDiC's dense-rpb to fine-tuning and segmentation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from shrinking import shrink
from shrinking_benchmarks import shrink_benchmark
from timm.models.beit import Beit

from medic_mm.engine.hooks import PretrainedBackboneHook
from medic_mm.models.medic.algorithm import MEDiC

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STUDENTS = [
    'maskdistill/vitb_300e.py',
    'medic/medic-dense-rpb_vit-base-p16_8xb256-amp-coslr-300e_in1k.py',
]
CLASSIFIER = 'classification/beit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py'
SEGMENTOR = (
    'segmentation/beit-base-p16_medic-pre_upernet_8xb2-amp-160k_ade20k-512x512.py'
)
SIDE = 64
BLOCKS = 4


def pretrained(name: str, file: Path) -> MEDiC:
    """The algorithm of a config, scrambled, and saved as a run saves it."""
    cfg = shrink(Config.fromfile(CONFIGS / name))
    cfg.model.backbone.arch.num_layers = BLOCKS
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        settings = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
        model = MODELS.build(settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    model.eval()
    return model


def downstream(name: str, file: Path, **backbone) -> tuple[torch.nn.Module, str]:
    """The network of a benchmark config as the first step meets it, and the log."""
    if 'segmentation' in name:
        pytest.importorskip('mmseg')
        import_modules_from_strings('mmseg.models')
    cfg = shrink_benchmark(Config.fromfile(CONFIGS / 'benchmarks' / name))
    cfg.model.backbone.arch.num_layers = BLOCKS
    cfg.model.backbone.update({'img_size': SIDE, **backbone})
    cfg.model.backbone.init_cfg.checkpoint = str(file)
    settings = dict(cfg.model)
    settings.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(settings)
        logs: list[str] = []
        logger = SimpleNamespace(info=logs.append, warning=logs.append)
        runner = SimpleNamespace(model=model, logger=logger)
        hook = PretrainedBackboneHook()
        hook.before_run(runner)
        model.init_weights()
        hook.before_train(runner)
    model.eval()
    return model, '\n'.join(logs)


def images(side: int = SIDE) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('name', STUDENTS)
def test_fine_tuning_starts_from_the_tokens_of_pre_training(
    name: str, shared: bool, tmp_path: Path
) -> None:
    source = pretrained(name, tmp_path / 'a.pth')
    positions = dict(use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared)
    classifier, log = downstream(CLASSIFIER, tmp_path / 'a.pth', **positions)
    with torch.no_grad():
        expected = source.backbone(images(), None)[-1][:, 0]
        found = classifier.backbone(images())[-1]
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert classifier.head((found,)).shape == (2, 1000)
    assert 'new in the network: nothing; left in the file: mask_token' in log
    assert ('a copy of the shared' in log) == (not shared)


@pytest.mark.parametrize('name', STUDENTS)
def test_segmentation_starts_from_the_tokens_of_pre_training(
    name: str, tmp_path: Path
) -> None:
    source = pretrained(name, tmp_path / 'a.pth')
    source.backbone.out_indices = list(range(BLOCKS))
    segmentor, log = downstream(SEGMENTOR, tmp_path / 'a.pth')
    with torch.no_grad():
        found = segmentor.backbone(images())
        # the last block of pre-training has its norm behind it
        expected = source.backbone(images(), None)[:-1]
        for tokens, features in zip(expected, found[:-1], strict=True):
            torch.testing.assert_close(
                features.flatten(2).mT, tokens[:, 1:], atol=1e-5, rtol=0
            )
    assert 'new in the network: nothing; left in the file: ' in log
    assert {'ln1.weight', 'ln1.bias', 'mask_token'} <= set(
        log.split('left in the file: ')[1].split('; ')[0].split(', ')
    )


def test_segmentation_of_larger_images_resizes_the_tables(tmp_path: Path) -> None:
    source = pretrained(STUDENTS[0], tmp_path / 'a.pth')
    segmentor, log = downstream(SEGMENTOR, tmp_path / 'a.pth', img_size=2 * SIDE)
    assert 'relative positions resized from 4x4 to 8x8' in log
    table = source.backbone.rel_pos_bias.relative_position_bias_table
    for block in segmentor.backbone.layers:
        resized = block.attn.relative_position_bias_table
        assert resized.shape == (15 * 15 + 3, 3)
        assert torch.equal(resized[-3:], table[-3:])
        # no distance, and the farthest one, keep their bias
        torch.testing.assert_close(resized[112], table[24], atol=1e-5, rtol=0)
        torch.testing.assert_close(resized[0], table[0], atol=1e-2, rtol=0)
    with torch.no_grad():
        assert segmentor.backbone(images(2 * SIDE))[0].shape == (2, 48, 8, 8)


def test_fine_tuning_starts_from_a_released_file(tmp_path: Path) -> None:
    """Of MaskDistill or MEDiC's token + CLS, as it was downloaded."""
    released = Beit(
        img_size=SIDE,
        patch_size=16,
        embed_dim=48,
        depth=BLOCKS,
        num_heads=3,
        mlp_ratio=2,
        init_values=0.1,
        global_pool='token',
        num_classes=0,
        use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in released.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    weights = {f'module.student.{k}': v for k, v in released.state_dict().items()}
    weights['module.student.mask_token'] = torch.ones(1, 1, 48)
    weights['module.distill_head.weight'] = torch.ones(4, 48)
    torch.save({'model': weights}, tmp_path / 'token_cls.pth')
    classifier, log = downstream(CLASSIFIER, tmp_path / 'token_cls.pth')
    released.eval()
    with torch.no_grad():
        expected = released.forward_features(images())[:, 0]
        found = classifier.backbone(images())[-1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert 'new in the network: nothing' in log


@pytest.mark.parametrize('size', [(40, 90), (64, 64), (100, 70)])
def test_test_images_of_any_size_are_segmented(
    size: tuple[int, int], tmp_path: Path
) -> None:
    """Smaller ones are padded to the window, and the padding is taken off again."""
    pretrained(STUDENTS[0], tmp_path / 'a.pth')
    segmentor, _ = downstream(SEGMENTOR, tmp_path / 'a.pth')
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        (found,) = segmentor.test_step(dict(inputs=[picture], data_samples=[sample]))
    assert found.pred_sem_seg.data.shape == (1, *size)


@pytest.mark.parametrize(
    ('config', 'advised'),
    [
        ('vit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py', 'beit-'),
        (Path(CLASSIFIER).name, 'vit-'),
    ],
)
def test_the_other_kind_of_positions_is_refused(
    config: str, advised: str, tmp_path: Path
) -> None:
    name = STUDENTS[0] if advised == 'beit-' else 'medic/vitb_300e.py'
    pretrained(name, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=rf'use the config {advised}\*') as caught:
        downstream(f'classification/{config}', tmp_path / 'a.pth')
    # the config that is advised exists, and takes the file
    if advised == 'beit-':
        pattern = str(caught.value).split('use the config ')[1].split(',')[0]
        (advised_file,) = (CONFIGS / 'benchmarks/classification').glob(f'{pattern}.py')
        downstream(f'classification/{advised_file.name}', tmp_path / 'a.pth')
