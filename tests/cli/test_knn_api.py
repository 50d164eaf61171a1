"""k-NN of a checkpoint: the tool end to end, and what it refuses."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from labelled import knn_hook_config, loader_config, make_folder, training_config
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import medic_config
from torch import nn

from medic_mm.cli.knn import evaluate_knn, format_report
from medic_mm.errors import UserError
from medic_mm.evaluation.loaders import find_dataloaders
from medic_mm.settings.student import Student


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('labelled'))


@pytest.fixture(scope='module')
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """MEDiC after two epochs, evaluated by the hook on the way."""
    work_dir = tmp_path_factory.mktemp('run')
    settings = training_config(folder, work_dir, [knn_hook_config(folder, k=(3, 5))])
    runner = Runner.from_cfg(Config({**settings, 'experiment_name': 'knn_api'}))
    runner.train()
    return runner


def write_config(folder: Path, path: Path, **changes) -> Path:
    """A config for the tool alone: its teacher does not exist."""
    settings = training_config(folder, path.parent, [knn_hook_config(folder)])
    settings['model']['target_generator'] = dict(type='NoSuchTeacher')
    settings.update(changes)
    Config(settings).dump(path)
    return path


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/knn.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['knn.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'knn.py'), run_name='__main__')


def test_tool_finds_what_the_hook_found(
    folder: Path,
    trained: Runner,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config = write_config(folder, tmp_path / 'config.py')
    checkpoint = Path(trained.work_dir) / 'epoch_2.pth'
    out = tmp_path / 'reports' / 'knn.json'
    run_tool(monkeypatch, root, config, checkpoint, '--k', 3, 5, '--out', out)
    printed = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report['config'] == str(config)
    assert report['checkpoint'] == str(checkpoint)
    assert report['temperature'] == 0.07
    assert (report['train_images'], report['test_images']) == (15, 15)
    assert report['num_classes'] == 3
    assert report['seed'] is None
    assert report['seconds'] > 0
    hub = trained.message_hub
    rows = [(row['features'], row['k']) for row in report['results']]
    assert rows == [('cls', 3), ('cls', 5), ('mean', 3), ('mean', 5)]
    for row in report['results']:
        key = f'knn/{row["features"]}_top1_k{row["k"]}'
        assert row['top1'] == pytest.approx(hub.get_scalar(key).current())
    for name in ('cls', 'mean'):
        expected = hub.get_scalar(f'knn/{name}_rankme').current()
        assert report['rankme'][name] == pytest.approx(expected, rel=1e-4)
    assert format_report(report) in printed


def test_tool_says_what_is_missing(
    folder: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config = write_config(folder, tmp_path / 'config.py')
    with pytest.raises(SystemExit) as stop:
        run_tool(monkeypatch, root, config, 'none.pth')
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: checkpoint 'none.pth' does not exist\n"


def test_random_weights_repeat_and_differ_from_trained(
    folder: Path, trained: Runner
) -> None:
    config = Config(training_config(folder, Path('unused'), [knn_hook_config(folder)]))
    reports = [evaluate_knn(config, 'random', ks=(3,), device='cpu') for _ in '12']
    assert reports[0]['seed'] == 3
    for report in reports:
        del report['seconds']
    assert reports[0] == reports[1]
    config.randomness.seed = 4
    other = evaluate_knn(config, 'random', ks=(3,), device='cpu')
    assert other['rankme'] != reports[0]['rankme']


def test_student_has_no_other_parts_and_loads_no_file() -> None:
    model = medic_config()
    model['target_generator'] = dict(type='NoSuchTeacher')
    model['head'] = model['neck'] = dict(type='NoSuchPart')
    model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='none.pth')
    model['init_cfg'] = [
        dict(type='Pretrained', checkpoint='none.pth'),
        dict(type='Constant', layer='LayerNorm', val=0.5),
    ]
    student = Student(model)
    student.init_weights()
    assert [name for name, _ in student.named_children()] == [
        'backbone',
        'data_preprocessor',
    ]
    # the algorithm's own initialisation reaches the backbone
    assert torch.equal(student.backbone.ln1.weight, torch.full((48,), 0.5))
    assert model['backbone']['init_cfg']['type'] == 'Pretrained'


def test_student_runs_masking_backbones_on_whole_images() -> None:
    arch = dict(embed_dims=12, num_layers=1, num_heads=2, feedforward_channels=24)
    sizes = dict(arch=arch, img_size=16, patch_size=4)
    for kind in ('MAEViT', 'BEiTPretrainViT', 'VisionTransformer'):
        backbone = dict(type=f'mmpretrain.{kind}', out_type='raw', **sizes)
        student = Student(dict(backbone=backbone))
        nn.Module.eval(student)
        assert student.extract_feat(torch.randn(2, 3, 16, 16))[-1].shape == (2, 17, 12)


def test_where_the_data_come_from(folder: Path) -> None:
    loaders = dict(
        knn_train_dataloader=loader_config(folder, 'train'),
        knn_test_dataloader=loader_config(folder, 'val'),
    )
    found = find_dataloaders(Config(dict(custom_hooks=[dict(type='Other')], **loaders)))
    assert found == [loader_config(folder, 'train'), loader_config(folder, 'val')]
    hook = knn_hook_config(folder)
    hook['train_dataloader']['batch_size'] = 7
    found = find_dataloaders(Config(dict(custom_hooks=[hook], **loaders)))
    assert found[0]['batch_size'] == 7
    loaders.pop('knn_test_dataloader')
    with pytest.raises(UserError, match='or set knn_test_dataloader at its top'):
        find_dataloaders(Config(loaders))


def test_checkpoint_that_lacks_a_weight(
    folder: Path, trained: Runner, tmp_path: Path
) -> None:
    config = Config(training_config(folder, tmp_path, [knn_hook_config(folder)]))
    state = {k: v for k, v in trained.model.state_dict().items() if 'ln1.bias' not in k}
    torch.save({'state_dict': state}, tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'missing layers\.0\.ln1\.bias'):
        evaluate_knn(config, str(tmp_path / 'part.pth'), device='cpu')


def test_diverged_checkpoint(folder: Path, trained: Runner, tmp_path: Path) -> None:
    config = Config(training_config(folder, tmp_path, [knn_hook_config(folder)]))
    state = {k: v * torch.nan for k, v in trained.model.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'nan.pth')
    with pytest.raises(ValueError, match=r'NaN or infinity in .*pos_embed'):
        evaluate_knn(config, str(tmp_path / 'nan.pth'), ks=(3,), device='cpu')


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(ks=(0,)), 'k=0 must'),
        (dict(temperature=0), 'temperature=0 must'),
        (dict(features=('patch',)), 'features='),
    ],
)
def test_bad_settings(folder: Path, settings: dict, words: str) -> None:
    config = Config(training_config(folder, Path('unused'), [knn_hook_config(folder)]))
    with pytest.raises(ValueError, match=words):
        evaluate_knn(config, 'random', device='cpu', **settings)


def test_config_without_backbone(folder: Path) -> None:
    config = Config(dict(custom_hooks=[knn_hook_config(folder)]))
    with pytest.raises(ValueError, match=r'no model\.backbone'):
        evaluate_knn(config, 'random', device='cpu')
