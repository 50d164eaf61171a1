"""Evaluation by one command: which configs are chosen, the table, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import vits
from labelled import make_folder
from mmengine.config import Config
from mmengine.registry import DATASETS as DATASETS_OF_MMENGINE
from mmengine.registry import DefaultScope
from PIL import Image
from shrinking_benchmarks import shrink_benchmark
from timm.models.beit import Beit

from medic_mm.checkpoints import load_backbone
from medic_mm.cli import evaluation_run as module
from medic_mm.cli.convert import convert_file
from medic_mm.cli.evaluate import Evaluation, evaluate
from medic_mm.cli.evaluation_inputs import DATASETS, PretrainedStudent, read_student
from medic_mm.cli.evaluation_plan import (
    SUITE,
    LeftOut,
    Task,
    check_suite,
    features_config,
    make_plan,
)
from medic_mm.cli.evaluation_run import Row
from medic_mm.cli.knn import find_dataloaders
from medic_mm.errors import UserError
from medic_mm.evaluation.loaders import labelled_loaders
from medic_mm.helpers import duration
from medic_mm.registry import MODELS

TINY_MEDIC = 'medic/medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
TINY_MIMHD = 'mimhd/mimhd_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'
TINYMIM = 'tinymim/tinymim_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'
DENSE_RPB = 'medic/medic-dense-rpb_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'
MAE = 'mae/mae_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'
LAYER_SCALE = 'model.backbone.layer_scale_init_value'


def save_checkpoint(path: Path, cfg: Config | str, **weights: torch.Tensor) -> str:
    """A checkpoint with the config and next to no weights."""
    text = cfg if isinstance(cfg, str) else cfg.pretty_text
    state = {f'backbone.{k}': v for k, v in weights.items()}
    state = state or {'backbone.cls_token': torch.zeros(1)}
    torch.save({'state_dict': state, 'meta': {'cfg': text}}, path)
    return str(path)


def student_of(root: Path, folder: Path, config: str) -> PretrainedStudent:
    cfg = Config.fromfile(root / 'configs' / config)
    return read_student(save_checkpoint(folder / 'epoch_1.pth', cfg))


def make_data(folder: Path, *names: str) -> Path:
    """Data sets that have their folders and nothing in them."""
    folder.mkdir(exist_ok=True)
    for name in names:
        for part in DATASETS[name].parts:
            (folder / DATASETS[name].places[-1] / part).mkdir(parents=True)
    return folder


BASE = 'classification/vit-base-p16_{}'
UPERNET = 'segmentation/vit-{}_upernet_'
TINY = 'classification/vit-tiny-p8_{}-pre_1xb100-coslr-10e_cifar10-64px.py'
CHOSEN = {
    TINY_MEDIC: {
        'knn-cifar10': None,
        'linear-cifar10': None,
        'finetune-cifar10': TINY.format('medic'),
        'segmentation-camvid': UPERNET.format('tiny-p8_medic-pre')
        + '1xb8-400i_camvid-240x176.py',
    },
    **{
        name: {
            'knn-cifar10': None,
            'linear-cifar10': None,
            'finetune-cifar10': TINY.format('mimhd'),
            'segmentation-camvid': UPERNET.format('tiny-p8_mimhd-pre')
            + '1xb8-400i_camvid-240x176.py',
        }
        for name in (TINY_MIMHD, TINYMIM, MAE)
    },
    'medic/vitb_300e.py': {
        'knn-cifar10': None,
        'knn-imagenet': None,
        'linear-cifar10': None,
        'linear-imagenet': BASE.format(
            'medic-pre_linear-cls_8xb512-amp-coslr-90e_in1k.py'
        ),
        'finetune-imagenet': BASE.format('medic-pre_8xb128-amp-coslr-100e_in1k.py'),
        'segmentation-ade20k': UPERNET.format('base-p16_medic-pre')
        + '8xb2-amp-160k_ade20k-512x512.py',
    },
    **{
        name: {
            'knn-cifar10': None,
            'knn-imagenet': None,
            'linear-cifar10': None,
            'linear-imagenet': None,
            'finetune-imagenet': 'classification/'
            'beit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py',
            'segmentation-ade20k': 'segmentation/beit-base-p16_medic-pre_upernet_'
            '8xb2-amp-160k_ade20k-512x512.py',
        }
        for name in ('maskdistill/vitb_300e.py', DENSE_RPB)
    },
    'mimhd/vitb_100e.py': {
        'knn-cifar10': None,
        'knn-imagenet': None,
        'linear-cifar10': None,
        'linear-imagenet': BASE.format(
            'mimhd-pre_linear-cls-mean_8xb512-amp-coslr-90e_in1k.py'
        ),
        'finetune-imagenet': BASE.format('mimhd-pre_8xb128-amp-coslr-100e_in1k.py'),
        'segmentation-ade20k': UPERNET.format('base-p16_mimhd-pre')
        + '8xb2-amp-160k_ade20k-512x512.py',
    },
    'mimhd/vits_100e.py': {
        'knn-cifar10': None,
        'knn-imagenet': None,
        'linear-cifar10': None,
        'linear-imagenet': None,
        'finetune-imagenet': 'classification/'
        'vit-small-p16_mimhd-pre_8xb256-amp-coslr-200e_in1k.py',
        'segmentation-ade20k': UPERNET.format('small-p16_mimhd-pre')
        + '8xb2-amp-160k_ade20k-512x512.py',
    },
}


@pytest.mark.parametrize('config', CHOSEN)
def test_configs_are_chosen_by_the_checkpoint(
    root: Path, tmp_path: Path, config: str
) -> None:
    student = student_of(root, tmp_path, config)
    data = make_data(tmp_path / 'data', *DATASETS)
    tasks, left_out = make_plan(student, list(SUITE), data, root)
    benchmarks = root / 'configs' / 'benchmarks'
    assert {
        task.name: task.config and str(task.config.relative_to(benchmarks))
        for task in tasks
    } == CHOSEN[config]
    assert len(tasks) + len(left_out) == 8


@pytest.mark.parametrize(
    ('config', 'scale', 'family', 'option'),
    [
        (TINY_MEDIC, 0.0, 'medic', 0.0),
        (TINY_MIMHD, 0.1, 'mimhd', 0.1),
        (TINYMIM, 1e-5, 'mimhd', 1e-5),
        (MAE, 0.1, 'mimhd', 0.1),
        (TINY_MEDIC, 1e-5, 'medic', None),
    ],
)
def test_the_method_decides_not_layer_scale(
    root: Path,
    tmp_path: Path,
    config: str,
    scale: float,
    family: str,
    option: float | None,
) -> None:
    cfg = Config.fromfile(root / 'configs' / config)
    cfg.model.backbone.layer_scale_init_value = scale
    student = read_student(save_checkpoint(tmp_path / 'a.pth', cfg))
    assert student.title.endswith(', no LayerScale' if scale == 0 else ', LayerScale')
    data = make_data(tmp_path / 'data', 'cifar10')
    ((task,), _) = make_plan(student, ['finetune'], data, root)
    assert task.config.name == Path(TINY.format(family)).name
    wanted = {} if option is None else {LAYER_SCALE: option}
    assert task.changes == wanted


def test_the_method_of_a_class_of_ones_own(root: Path, tmp_path: Path) -> None:
    """Of a config that the user gives, the class says what it is built on."""
    (tmp_path / 'own_medic.py').write_text(
        'from medic_mm.models.medic.algorithm import MEDiC\n'
        'from medic_mm.registry import MODELS\n\n\n'
        '@MODELS.register_module(force=True)\n'
        'class OwnMEDiC(MEDiC):\n'
        '    pass\n'
    )
    cfg = Config.fromfile(root / 'configs' / TINY_MEDIC)
    cfg.model.type = 'medic_mm.OwnMEDiC'
    file = save_checkpoint(tmp_path / 'a.pth', cfg)
    # the one that the checkpoint carries is not run
    assert read_student(file).family == 'mimhd-pre'
    cfg.custom_imports = dict(imports=['own_medic'])
    cfg.dump(tmp_path / 'config.py')
    sys.path.insert(0, str(tmp_path))
    try:
        assert read_student(file, tmp_path / 'config.py').family == 'medic-pre'
    finally:
        sys.path.remove(str(tmp_path))


def test_features_are_those_of_the_student(root: Path, tmp_path: Path) -> None:
    student = student_of(root, tmp_path, 'medic/vitb_300e.py')
    cfg = features_config(student, DATASETS['cifar10'], tmp_path, root)
    assert cfg.model.backbone.layer_scale_init_value == 0.1
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    for loader, split in (('train', 'train'), ('test', 'val')):
        dataset = cfg[f'knn_{loader}_dataloader'].dataset
        assert (dataset.data_root, dataset.data_prefix) == (str(tmp_path), split)
        assert dataset.pipeline[1].scale == 224
    pipeline = features_config(student, DATASETS['imagenet'], tmp_path, root)
    pipeline = pipeline.knn_test_dataloader.dataset.pipeline
    assert (pipeline[1].scale, pipeline[2].crop_size) == (256, 224)


def test_a_downloaded_config_names_no_function(root: Path, tmp_path: Path) -> None:
    config = (
        "model = dict(backbone=dict(type='subprocess.VisionTransformer', args='ls'), "
        "data_preprocessor=dict(type='subprocess.getoutput', mean=[1.0] * 3))"
    )
    student = read_student(save_checkpoint(tmp_path / 'a.pth', config))
    data = make_data(tmp_path / 'data', 'cifar10')
    tasks, left_out = make_plan(student, ['knn'], data, root)
    assert not tasks
    assert 'neither ours nor of mmpretrain; --config' in left_out[0].reason
    config = config.replace("subprocess.VisionTransformer', args='ls'", "MaskedViT'")
    student = read_student(save_checkpoint(tmp_path / 'b.pth', config))
    cfg = features_config(student, DATASETS['cifar10'], tmp_path, root)
    assert cfg.model.data_preprocessor.type == 'medic_mm.HostSamplesPreprocessor'


def test_a_backbone_of_ones_own_needs_its_config(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'own_backbone.py').write_text(
        'from mmpretrain.models import VisionTransformer\n'
        'from mmpretrain.registry import MODELS\n\n\n'
        '@MODELS.register_module(force=True)\n'
        'class OwnBackbone(VisionTransformer):\n'
        '    pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = Config.fromfile(root / 'configs' / TINY_MEDIC)
    cfg.model.backbone = dict(type='OwnBackbone', arch=vits.ARCH, img_size=64)
    checkpoint = save_checkpoint(tmp_path / 'a.pth', cfg)
    data = make_data(tmp_path / 'data', 'cifar10')
    tasks, left_out = make_plan(read_student(checkpoint), ['knn'], data, root)
    assert not tasks
    assert left_out[0].reason.endswith('--config CONFIG would do')
    cfg.custom_imports = dict(imports=['own_backbone'])
    cfg.dump(tmp_path / 'config.py')
    student = read_student(checkpoint, tmp_path / 'config.py')
    tasks, _ = make_plan(student, ['knn'], data, root)
    assert [task.name for task in tasks] == ['knn-cifar10']
    features = features_config(student, DATASETS['cifar10'], data, root)
    assert features.custom_imports == dict(imports=['own_backbone'])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(features.model.backbone)
    assert type(built).__name__ == 'OwnBackbone'


def test_missing_and_incomplete_data(root: Path, tmp_path: Path) -> None:
    student = student_of(root, tmp_path, TINY_MEDIC)
    data = make_data(tmp_path / 'data', 'cifar10')
    (data / 'camvid' / 'images' / 'train').mkdir(parents=True)
    (data / 'cifar10' / 'val').rmdir()
    tasks, left_out = make_plan(student, ['finetune', 'segmentation'], data, root)
    assert tasks == []
    reasons = {task.title: task.reason for task in left_out}
    assert reasons['fine-tuning on CIFAR-10'] == f'{data / "cifar10"} has no val'
    assert reasons['segmentation on CamVid'] == (
        f'{data / "camvid"} has no images/test and no annotations/train and no '
        'annotations/test'
    )
    assert reasons['segmentation on ADE20K'] == (
        'the student takes images of 64 px, its configs are for other sizes'
    )
    with pytest.raises(UserError, match=r'nothing can be run\. Left out: fine-tun'):
        evaluate(student.checkpoint, root, data, ['finetune'], out=tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    with pytest.raises(UserError, match=r"--data: folder '.*none' does not exist"):
        evaluate(student.checkpoint, root, tmp_path / 'none')


def test_random_student_of_a_config(root: Path) -> None:
    config = root / 'configs' / TINY_MIMHD
    student = read_student('random', config)
    assert student.family == 'mimhd-pre'
    assert student.title == 'ViT of 6 blocks, 192 wide, patches of 8, no LayerScale'
    with pytest.raises(UserError, match="'random' needs --config CONFIG"):
        read_student('random')


def test_bad_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    with pytest.raises(UserError, match=r"checkpoint '.*a\.pth' does not exist"):
        read_student(str(path))
    torch.save({'state_dict': {'visual.proj': torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=r"no weights below 'backbone\.'"):
        read_student(str(path))
    torch.save({'state_dict': {'backbone.cls_token': torch.zeros(1)}}, path)
    with pytest.raises(UserError, match='has no config of its run'):
        read_student(str(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match='is incomplete'):
        read_student(str(path))
    torch.save({'state_dict': {'backbone.x': sys.exit}}, path)
    with pytest.raises(UserError, match='carries pickled code'):
        read_student(str(path))
    with pytest.raises(UserError, match=r"config 'no\.py' does not exist"):
        read_student(str(path), Path('no.py'))


@pytest.mark.parametrize('relative', [False, True])
def test_each_advice_leads_to_the_next_step(
    root: Path, tmp_path: Path, relative: bool
) -> None:
    """A released file: convert it, give its config, and it is evaluated."""
    student = vits.fill(
        Beit(
            img_size=vits.IMAGE,
            patch_size=vits.PATCH,
            embed_dim=vits.DIMS,
            depth=vits.DEPTH,
            num_heads=vits.HEADS,
            init_values=0.1,
            global_pool='token',
            num_classes=0,
            use_abs_pos_emb=not relative,
            use_shared_rel_pos_bias=relative,
        )
    )
    released, converted = tmp_path / 'token_cls.pth', tmp_path / 'converted.pth'
    torch.save(
        {f'module.student.{k}': v for k, v in student.state_dict().items()}, released
    )
    with pytest.raises(UserError, match=r'tools/convert\.py') as caught:
        read_student(str(released))
    assert 'brings weights of other code bases into this layout' in str(caught.value)
    convert_file(released, converted, 'mmpretrain')
    with pytest.raises(UserError, match='give the config file of its pre-training too'):
        read_student(str(converted))
    cfg = Config.fromfile(root / 'configs' / (DENSE_RPB if relative else TINY_MEDIC))
    cfg.model.backbone.update(
        arch=vits.ARCH, img_size=vits.IMAGE, patch_size=vits.PATCH
    )
    cfg.dump(tmp_path / 'config.py')
    found = read_student(str(converted), tmp_path / 'config.py')
    assert found.family == 'medic-pre'
    assert found.title.startswith('BEiT of ' if relative else 'ViT of ')
    data = make_data(tmp_path / 'data', 'cifar10')
    tasks, _ = make_plan(found, ['knn'], data, root)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        features = features_config(found, DATASETS['cifar10'], data, root)
        backbone = MODELS.build(features.model.backbone)
    report = load_backbone(backbone, converted, strict=False)
    assert report.unexpected == ()
    assert set(report.missing) <= {'mask_token'}
    assert [task.name for task in tasks] == ['knn-cifar10']


def test_suite() -> None:
    assert check_suite(['segmentation', ' knn', 'knn']) == ['knn', 'segmentation']
    for wrong in (['knn', 'lineer'], ['']):
        with pytest.raises(UserError, match='choose from knn, linear, finetune'):
            check_suite(wrong)
    with pytest.raises(UserError, match='--gpus 0'):
        evaluate('a.pth', Path(), gpus=0)


def test_table(tmp_path: Path) -> None:
    evaluation = Evaluation(
        'epoch_1.pth',
        'ViT',
        [
            Row('k-NN', 'CIFAR-10', 'top-1 accuracy (%)', 51.234, 'a.py', 9.6),
            Row('segmentation', 'CamVid', 'mIoU (%)', 7.0, 'long/b.py', 720, True),
        ],
        [LeftOut('A', 'no data'), LeftOut('B', 'no config'), LeftOut('C', 'no data')],
        [LeftOut('D', 'status 1')],
    )
    markdown, as_json = evaluation.save(tmp_path)
    assert markdown.read_text().splitlines() == [
        'Evaluation of `epoch_1.pth`, a ViT',
        '',
        '| task         | data     | metric             | value |             time | '
        'config      |',
        '|--------------|----------|--------------------|------:|-----------------:|'
        '-------------|',
        '| k-NN         | CIFAR-10 | top-1 accuracy (%) | 51.23 |             10 s | '
        '`a.py`      |',
        '| segmentation | CamVid   | mIoU (%)           |  7.00 | 12 min (resumed) | '
        '`long/b.py` |',
        '',
        'Left out: A, C (no data); B (no config).',
        '',
        'Failed: D (status 1).',
    ]
    found = json.loads(as_json.read_text())
    assert found['rows'][0]['value'] == 51.234
    assert found['rows'][1]['config'] == 'long/b.py'
    assert found['left_out'][1] == {'title': 'B', 'reason': 'no config'}
    assert [duration(s) for s in (99.4, 100, 12000)] == ['99 s', '2 min', '3 h 20 min']


class Tools:
    """In place of the tools: writes what they write, and notes the command lines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[str]] = []
        self.status: dict[str, int] = {}
        monkeypatch.setattr(module.subprocess, 'run', self.run)

    def run(self, command: list[str], **_: object) -> object:
        self.calls.append(command)
        tool = Path(command[1]).stem
        status = self.status.get(tool, 0)
        if '--work-dir' in command and 'train' in tool:
            folder = Path(command[command.index('--work-dir') + 1])
            (folder / 'iter_9.pth').touch()
            (folder / 'last_checkpoint').write_text('/moved/iter_9.pth')
        if '--out' in command and not status:
            rows = [dict(features='cls', k=20, top1=40.0)]
            report = dict(results=rows, linear=rows, train_images=1000, seconds=9)
            if 'linear' in tool:
                report.update(knn=[dict(rows[0], top1=41.0)], encoding_seconds=7)
            report = {**report, 'mIoU': 30.0} if 'test' in tool else report
            Path(command[command.index('--out') + 1]).write_text(json.dumps(report))
        return type('Done', (), dict(returncode=status))()


def test_steps_that_are_done_are_skipped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    student = student_of(root, tmp_path, TINY_MEDIC)
    data = make_data(tmp_path / 'data', 'cifar10', 'camvid')
    arguments = (student.checkpoint, root, data, ['knn', 'segmentation'])
    out = tmp_path / 'out'
    tools.status['train'] = 3
    first = evaluate(*arguments, out=out)
    assert [row.value for row in first.rows] == [40.0]
    assert first.failed[0].title == 'segmentation on CamVid'
    assert 'tools/train.py ended with status 3' in first.failed[0].reason
    assert '--resume' not in tools.calls[-1]
    last = tools.calls[-1]
    assert last[last.index('--data-root') + 1] == f'{data}/camvid'

    tools.calls, tools.status = [], {'test': 1}
    evaluate(*arguments, out=out)
    train, test = tools.calls
    assert train[train.index('--resume') + 1] == 'auto'
    assert train[train.index('--pretrained') + 1] == student.checkpoint
    assert '--auto-scale-lr' in train
    # the folder may have been moved since
    assert test[3] == str(out / 'segmentation-camvid' / 'iter_9.pth')

    tools.calls, tools.status = [], {}
    third = evaluate(*arguments, out=out, gpus=2)
    assert len(tools.calls) == 1
    assert Path(tools.calls[0][1]).name == 'dist_test.sh'
    assert tools.calls[0][4] == '2'
    assert [row.value for row in third.rows] == [40.0, 30.0]
    assert third.rows[1].config.startswith('configs/benchmarks/segmentation/vit-tiny')

    tools.calls = []
    assert evaluate(*arguments, out=out) == third
    assert tools.calls == []
    assert json.loads((out / 'evaluation.json').read_text()) == third.as_dict()

    comma = data.rename(tmp_path / 'a,b')
    found = evaluate(*arguments[:2], comma, ['finetune'], out=tmp_path / 'comma')
    first = tools.calls[0]
    assert first[first.index('--data-root') + 1] == f'{tmp_path}/a,b/cifar10'
    assert not found.failed or 'status' not in found.failed[0].reason

    moved = comma.rename(tmp_path / 'other')
    with pytest.raises(UserError, match='knn-cifar10 holds results of other data'):
        evaluate(*arguments[:2], moved, ['knn'], out=out)


def test_features_are_computed_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    student = student_of(root, tmp_path, TINY_MEDIC)
    data = make_data(tmp_path / 'data', 'cifar10')
    arguments = (student.checkpoint, root, data)
    both = evaluate(*arguments, ['knn', 'linear'], out=tmp_path / 'both')
    assert [Path(call[1]).name for call in tools.calls] == ['linear_probe.py']
    found = [(row.value, row.seconds) for row in both.rows]
    assert found == [(41.0, 7), (40.0, 9)]
    assert 'k = 20' in both.rows[0].metric
    one = evaluate(*arguments, ['knn'], out=tmp_path / 'one')
    assert Path(tools.calls[1][1]).name == 'knn.py'
    assert [(row.value, row.seconds) for row in one.rows] == [(40.0, 9)]
    config = Config.fromfile(tmp_path / 'one' / 'features-cifar10' / 'features.json')
    assert config.model.backbone.type == 'medic_mm.MaskedViT'


@pytest.mark.slow
def test_fine_tuning_end_to_end(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small network on 30 images, through the true tools."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    own = tmp_path / 'root'
    benchmarks = own / 'configs' / 'benchmarks' / 'classification'
    benchmarks.mkdir(parents=True)
    (own / 'tools').symlink_to(root / 'tools')
    (own / 'configs' / '_base_').symlink_to(root / 'configs' / '_base_')
    name = Path(TINY.format('medic')).name
    cfg = Config.fromfile(root / 'configs' / 'benchmarks' / 'classification' / name)
    shrink_benchmark(cfg)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(num_workers=0, batch_size=5, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    # that of the student is set on the command line
    cfg.model.backbone.layer_scale_init_value = 0.0
    cfg.dump(benchmarks / name)

    pretraining = Config.fromfile(root / 'configs' / TINY_MEDIC)
    backbone = pretraining.model.backbone
    backbone.update(arch=cfg.model.backbone.arch, img_size=cfg.model.backbone.img_size)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(backbone).state_dict()
    checkpoint = save_checkpoint(tmp_path / 'epoch_1.pth', pretraining, **weights)
    data = make_folder(tmp_path / 'data' / 'cifar10')
    for split in ('train', 'val'):
        for i in range(7):  # a class may have no images, and has to be there
            (data / split / f'other{i}').mkdir()
    found = evaluate(
        checkpoint, own, tmp_path / 'data', ['knn', 'finetune'], out=tmp_path / 'out'
    )
    assert not found.failed
    assert [(row.task, row.metric) for row in found.rows] == [
        ('k-NN', 'top-1 accuracy (%), cls, k = 20, 15 training images'),
        ('k-NN', 'top-1 accuracy (%), mean, k = 20, 15 training images'),
        ('fine-tuning', 'top-1 accuracy (%)'),
    ]
    assert all(0 <= row.value <= 100 and row.seconds > 0 for row in found.rows)


def make_masks(folder: Path, classes: int = 3) -> Path:
    """Two images and masks a split; the last class is in the validation masks alone."""
    for split, highest in (('train', classes - 2), ('val', classes - 1)):
        for part in ('images', 'annotations'):
            (folder / part / split).mkdir(parents=True)
        for number in range(2):
            values = np.random.default_rng(number).integers(0, 256, (48, 64, 3))
            mask = np.full((48, 64), 255, np.uint8)
            mask[:24], mask[24:40] = 0, highest
            image = Image.fromarray(values.astype(np.uint8))
            image.save(folder / 'images' / split / f'{number}.bmp')
            Image.fromarray(mask).save(folder / 'annotations' / split / f'{number}.png')
    return folder


def run_of(task: Task, student: PretrainedStudent, root: Path, out: Path) -> Config:
    """The config that a task is run with."""
    run = module.Run(task, student, root, out, gpus=1, probe_too=False)
    run.folder.mkdir(parents=True)
    return Config.fromfile(run.adapted_config(task.config))


@pytest.mark.parametrize('config', ['medic_tiny.py', 'mimhd_tiny.py'])
def test_any_student_on_data_of_ones_own(
    root: Path, tmp_path: Path, config: str
) -> None:
    """The quickstart's: no benchmark has its 4 blocks, 128 wide with 4 heads."""
    cfg = Config.fromfile(root / 'configs' / 'quickstart' / config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(cfg.model.backbone).state_dict()
    checkpoint = save_checkpoint(tmp_path / 'a.pth', cfg, **weights)
    student = read_student(checkpoint)
    images = make_folder(tmp_path / 'flowers')
    (images / 'val' / 'light').rename(tmp_path / 'gone')  # not all in both
    masks = make_masks(tmp_path / 'cells')
    data = [f'a.b={images}', f'cells={masks}']
    tasks, left_out = make_plan(student, list(SUITE), data, root)
    assert not left_out
    assert [(task.name, task.title) for task in tasks] == [
        ('knn-a.b', 'k-NN on a.b'),
        ('linear-a.b', 'linear probe on a.b'),
        ('finetune-a.b', 'fine-tuning on a.b'),
        ('segmentation-cells', 'segmentation on cells'),
    ]
    features = features_config(student, tasks[0].data, tasks[0].folder, root)
    loaders, count = labelled_loaders(find_dataloaders(features))
    assert (count, [len(x.dataset) for x in loaders]) == (3, [15, 10])
    assert next(iter(loaders[1]))['inputs'][0].shape == (3, 64, 64)

    tuned = run_of(tasks[2], student, root, tmp_path)
    family = student.family.removesuffix('-pre')
    readout = 'cls_token' if family == 'medic' else 'avg_featmap'
    assert tuned.model.backbone.out_type == readout
    assert tuned.train_dataloader.batch_size == 15
    assert tuned.test_dataloader.dataset.data_prefix == 'val'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(tuned.model)
        validation = DATASETS_OF_MMENGINE.build(tuned.val_dataloader.dataset)
    assert validation.metainfo['classes'] == ['dark', 'grey', 'light']
    assert load_backbone(network.backbone, checkpoint, strict=False).unexpected in (
        (),
        ('ln1.weight', 'ln1.bias'),
    )
    assert network.backbone.layers[0].attn.num_heads == 4
    assert network.head.fc.weight.shape == (3, 128)

    segmented = run_of(tasks[3], student, root, tmp_path)
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(segmented.model)
        dataset = DATASETS_OF_MMENGINE.build(segmented.train_dataloader.dataset)
        sample = dataset[0]
    assert dataset.metainfo['classes'] == ['0', '1', '2']
    assert sample['data_samples'].gt_sem_seg.data.unique().tolist() == [0, 1, 255]
    report = load_backbone(network.backbone, checkpoint, strict=False)
    assert not [x for x in report.missing if not x.startswith('ln')]
    network.eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 176, 240)).shape[1] == 3


def test_data_of_ones_own_are_looked_at_first(root: Path, tmp_path: Path) -> None:
    student = student_of(root, tmp_path, TINY_MEDIC)
    (tmp_path / 'a' / 'train' / 'x').mkdir(parents=True)

    def plan(*data: str, kind: str = 'finetune') -> list[Task]:
        return make_plan(student, [kind], data, root)[0]

    for data, sentence in (
        ([f'a={tmp_path}/a'], r'--data a=.*a has no val; a data set for classific'),
        ([f'a={tmp_path}/none'], r"folder '.*none' does not exist"),
        ([f'cifar10={tmp_path}'] * 2, 'cifar10 is given twice'),
    ):
        with pytest.raises(UserError, match=sentence):
            plan(*data)
    masks = make_masks(tmp_path / 'cells')
    (masks / 'classes.txt').write_text('sky\n\nroad\nfog\nsea\n')
    (task,) = plan(f'cells={masks}', kind='segmentation')
    assert task.changes['model.decode_head.num_classes'] == 4
    assert task.changes['train_dataloader.dataset']['metainfo']['classes'] == [
        *('sky', 'road', 'fog', 'sea'),
    ]
    (masks / 'images' / 'val' / '0.bmp').rename(masks / 'images' / 'val' / '0.jpg')
    with pytest.raises(UserError, match=r'images that end with \.bmp, \.jpg: mmseg'):
        plan(f'cells={masks}', kind='segmentation')
    # a shipped data set that lies elsewhere
    for part in ('train', 'val'):
        (tmp_path / 'elsewhere' / part).mkdir(parents=True)
    (task,) = plan(f'cifar10={tmp_path}/elsewhere')
    assert (task.name, task.folder) == ('finetune-cifar10', tmp_path / 'elsewhere')
    assert task.changes == {}


def test_a_student_of_another_size_takes_the_nearest_recipe(
    root: Path, tmp_path: Path
) -> None:
    student = student_of(root, tmp_path, 'medic/vitl_300e.py')
    data = make_data(tmp_path / 'data', 'imagenet', 'ade20k')
    tasks, _ = make_plan(student, ['finetune', 'segmentation'], data, root)
    assert [task.config.name.split('_')[0] for task in tasks] == ['vit-base-p16'] * 2
    finetune, segmentation = (
        run_of(task, student, root, tmp_path).model for task in tasks
    )
    assert finetune.backbone.arch.num_layers == 24
    assert finetune.head.in_channels == 1024
    assert segmentation.backbone.out_indices == [7, 11, 15, 23]
    assert segmentation.decode_head.in_channels == [1024] * 4
    assert segmentation.decode_head.channels == 1024
    assert segmentation.neck.rescales == [4, 2, 1, 0.5]
