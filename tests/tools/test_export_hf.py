"""tools/export_hf.py: timm loads the folder, the card tells the run, pushing asks."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from exported import (
    MASKED,
    RELATION,
    TINYMIM,
    images,
    make_run,
    run_config,
    save_checkpoint,
    write_scalars,
)
from safetensors import safe_open

import medic_mm
from medic_mm.cli.export_hf import export_hf
from medic_mm.errors import UserError


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/export_hf.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['export_hf.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'export_hf.py'), run_name='__main__')


@pytest.mark.parametrize('backbone', [MASKED, RELATION], ids=['masked', 'relation'])
@torch.no_grad()
def test_timm_and_load_model_give_the_tokens_of_the_source(
    backbone: dict, tmp_path: Path
) -> None:
    path, source = make_run(tmp_path, backbone)
    written = export_hf(path, tmp_path / 'folder')
    assert written.difference is not None and written.difference < 1e-5
    by_timm = timm.create_model(f'local-dir:{tmp_path / "folder"}', pretrained=True)
    ours = medic_mm.load_model(tmp_path / 'folder')
    expected = source(images())[-1]
    for model in (by_timm.eval(), ours):
        assert (model.forward_features(images()) - expected).abs().max() < 1e-5
        assert (model(images()) - expected[:, 0]).abs().max() < 1e-5
    with safe_open(tmp_path / 'folder' / 'model.safetensors', 'pt') as weights:
        assert set(weights.keys()) == set(by_timm.state_dict())
    data = timm.data.resolve_model_data_config(by_timm)
    assert data['mean'] == pytest.approx((0.485, 0.456, 0.406), abs=1e-9)
    assert (data['crop_mode'], data['crop_pct']) == ('squash', 1.0)
    assert tuple(data['input_size']) == (3, 32, 32)


def test_classes_can_be_added_to_the_folder(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    export_hf(path, tmp_path / 'folder')
    model = medic_mm.load_model(tmp_path / 'folder', num_classes=3)
    assert model(images()).shape == (4, 3)
    same = medic_mm.load_model(tmp_path / 'folder')
    assert torch.equal(model.blocks[1].ls1.gamma, same.blocks[1].ls1.gamma)


def test_card_tells_the_run_and_no_place_of_the_machine(tmp_path: Path) -> None:
    run = tmp_path / 'medic_tiny'
    path, _ = make_run(run, MASKED)
    before = {'knn/cls_top1_k20': 11.0, 'knn/mean_top1_k20': 12.0, 'step': 0}
    write_scalars(
        run / '20260101_000000', [before, {'knn/cls_top1_k20': 20, 'step': 2}]
    )
    last = {'knn/cls_top1_k20': 49.84, 'knn/cls_rankme': 3.0, 'step': 4}
    write_scalars(run / '20260102_000000', [{'loss': 1.0, 'step': 4}, last])
    export_hf(path, tmp_path / 'folder', licence='cc-by-nc-4.0')
    card = (tmp_path / 'folder' / 'README.md').read_text()
    for wanted in (
        '\nlicense: cc-by-nc-4.0\n',
        '# medic_tiny\n',
        'MEDiC, masked distillation',
        '3 blocks, 48 wide, 32x32 px in patches of 8',
        '| teacher | TimmTeacher (model="vit_small_patch14_dinov2", '
        'weights="vits14.safetensors") |',
        '| loss terms and weights | cls 0.3, token 1 |',
        'CustomDataset (data_root="pictures")',
        '4 epochs of 4, 40 iterations',
        '| batch size per process | 7 |',
        '| class token | 20 | 11.0 | 49.8 |',
    ):
        assert wanted in card, wanted
    assert 'mean patch token' not in card  # of another epoch
    assert '/machine' not in card and str(tmp_path) not in card
    assert str(tmp_path) not in (tmp_path / 'folder' / 'config.json').read_text()


def test_card_of_an_epoch_without_numbers(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path / 'run', MASKED)
    write_scalars(tmp_path / 'run' / 'time', [{'knn/cls_top1_k20': 20.0, 'step': 2}])
    export_hf(path, tmp_path / 'folder')
    card = (tmp_path / 'folder' / 'README.md').read_text()
    assert 'No numbers were found' in card and 'license: unknown' in card


@torch.no_grad()
def test_other_heads_are_refused_or_made_plain_on_request(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, source = make_run(tmp_path, TINYMIM)
    folder = tmp_path / 'folder'
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, root, 'none', path, folder)
    error = capsys.readouterr().err
    assert error.startswith('error: backbone.block_heads=4 gives the last block other')
    assert error.count('\n') == 1 and not folder.exists()
    run_tool(monkeypatch, root, 'none', path, folder, '--plain-heads')
    assert 'pre-trained with 4 heads and has 3 here' in capsys.readouterr().out
    assert 'with 4 heads and has 3 here' in (folder / 'README.md').read_text()
    plain = medic_mm.load_model(path, config=run_config(RELATION))
    found = medic_mm.load_model(folder).forward_features(images())
    assert torch.equal(found, plain.forward_features(images()))
    assert (found - source(images())[-1]).abs().max() > 1e-2


def test_folder_with_other_files_is_left_alone(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, _ = make_run(tmp_path / 'run', MASKED)
    folder = tmp_path / 'folder'
    run_tool(monkeypatch, root, 'none', path, folder)
    run_tool(monkeypatch, root, 'none', path, folder)  # an earlier export is replaced
    (folder / 'secret.txt').write_text('mine')
    before = (folder / 'model.safetensors').stat().st_mtime_ns
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, root, 'none', path, folder)
    assert 'holds other files (secret.txt)' in capsys.readouterr().err
    assert (folder / 'model.safetensors').stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        (None, "has no config of its run (meta['cfg'])"),
        (run_config(dict(MASKED, type='ResNet')), 'is not a plain Vision Transformer'),
        (run_config(dict(MASKED, final_norm=False)), 'unexpected norm.weight'),
    ],
    ids=['no-config', 'resnet', 'other-config'],
)
def test_bad_checkpoints_get_one_sentence(
    config: dict | None,
    sentence: str,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    _, source = make_run(tmp_path / 'good', MASKED)
    path = save_checkpoint(tmp_path / 'bad.pth', config, source)
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, root, 'none', path, tmp_path / 'folder')
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    assert sentence in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bad.pth', 'good']


def test_export_that_timm_reads_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = make_run(tmp_path / 'run', MASKED)
    usual = timm.create_model

    def forgets_layer_scale(name: str, **settings) -> torch.nn.Module:
        model = usual(name, **settings)
        torch.nn.init.ones_(model.blocks[0].ls1.gamma)
        return model

    monkeypatch.setattr('timm.create_model', forgets_layer_scale)
    with pytest.raises(UserError, match='nothing was written: in timm, the tokens'):
        export_hf(path, tmp_path / 'folder')
    assert [p.name for p in tmp_path.iterdir()] == ['run']


class FakeHub:
    """Stands for the Hub's client; keeps what it was asked."""

    calls: list[tuple] = []

    def whoami(self) -> dict:
        return dict(name='tester')

    def create_repo(self, repository: str, **settings) -> None:
        self.calls.append(('create', repository, settings['private']))

    def upload_folder(self, repo_id: str, folder_path: Path, **settings) -> None:
        self.calls.append(('upload', repo_id, sorted(settings['allow_patterns'])))


def test_push_says_what_and_how_large_and_only_on_request(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, _ = make_run(tmp_path, MASKED)
    monkeypatch.setattr(FakeHub, 'calls', [])
    monkeypatch.setattr('huggingface_hub.HfApi', FakeHub)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: 'token')
    folder = tmp_path / 'folder'
    run_tool(monkeypatch, root, 'none', path, folder)
    assert FakeHub.calls == []
    words = ('--push', 'tester/tiny', '--private')
    run_tool(monkeypatch, root, 'none', path, folder, *words)
    files = ['README.md', 'config.json', 'model.safetensors']
    assert FakeHub.calls == [
        ('create', 'tester/tiny', True),
        ('upload', 'tester/tiny', files),
    ]
    out = capsys.readouterr().out
    total = sum((folder / name).stat().st_size for name in files) / 1000
    assert f'together            {f"{total:.1f} kB":>12}' in out
    assert 'logged in as tester' in out and 'made private if it is new' in out
    assert 'hf-hub:tester/tiny' in (folder / 'README.md').read_text()


def test_push_without_login_or_with_a_wrong_id(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, _ = make_run(tmp_path, MASKED)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: None)
    for name, sentence in (
        ('me/tiny', 'nobody is logged in'),
        ('tiny', 'is not an id of the Hub: use name/model'),
    ):
        with pytest.raises(SystemExit):
            run_tool(monkeypatch, root, 'none', path, tmp_path / 'f', '--push', name)
        assert sentence in capsys.readouterr().err


def test_config_json_is_plain(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    export_hf(path, tmp_path / 'folder')
    config = json.loads((tmp_path / 'folder' / 'config.json').read_text())
    assert config['model_args']['init_values'] == 0.1
    assert config['num_classes'] == 0 and config['num_features'] == 48
