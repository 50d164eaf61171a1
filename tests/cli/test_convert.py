"""Checkpoint files from one layout to another: what is kept, said and refused."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import stat
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import plain_mae
import pytest
import torch
import vits
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors import safe_open
from safetensors.torch import load_file

from medic_mm.checkpoints import convert_keys, load_backbone
from medic_mm.cli.convert import convert_file
from medic_mm.errors import UserError

CONFIG = Config(
    dict(
        model=dict(
            type='medic_mm.MEDiC',
            backbone=dict(type='medic_mm.MaskedViT', layer_scale_init_value=0.1),
            target_generator=dict(type='medic_mm.OpenCLIPTeacher', weights='clip.pt'),
        ),
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True),
    )
).pretty_text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint as a training saves it."""
    state = vits.checkpoint(vits.mmpretrain_vit(layer_scale_init_value=0.1))
    state['head.projection.weight'] = torch.ones(4, vits.DIMS)
    optimizer = {'state': {0: {'exp_avg': torch.ones(3)}}, 'param_groups': []}
    meta = {'epoch': 7, 'iter': 70, 'cfg': CONFIG, 'seed': 0}
    path = tmp_path / 'epoch_7.pth'
    torch.save({'meta': meta, 'state_dict': state, 'optimizer': optimizer}, path)
    return path


def test_report_and_metadata(source: Path, tmp_path: Path) -> None:
    report = convert_file(source, tmp_path / 'out' / 'a.safetensors', 'timm')
    assert (report.source, report.target) == ('mmpretrain', 'timm')
    assert set(report.left_out) == {'head.projection.weight'}
    assert report.entries_left_out == ('optimizer',)
    text = report.text()
    assert 'left out, not part of the encoder: head.projection.weight' in text
    assert 'left out besides the weights: optimizer' in text
    with safe_open(report.path, framework='pt') as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(report.names)
    assert metadata['method'] == 'medic_mm.MEDiC'
    assert metadata['epoch'] == '7'
    assert metadata['config'] == CONFIG
    assert metadata['layout'] == 'timm'
    teacher = dict(type='medic_mm.OpenCLIPTeacher', weights='clip.pt')
    assert json.loads(metadata['teacher']) == teacher
    expected = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
    assert json.loads(metadata['normalisation']) == expected


def test_metadata_survive_the_way_over_both_formats(
    source: Path, tmp_path: Path
) -> None:
    there = convert_file(source, tmp_path / 'a.safetensors', 'mae', img_size=32)
    back = convert_file(there.path, tmp_path / 'b.pth', 'mmpretrain')
    content = torch.load(back.path, weights_only=True)
    assert content['meta']['cfg'] == CONFIG
    assert content['meta']['medic_mm'] == {
        **{k: v for k, v in there.description.items() if k != 'config'},
        'layout': 'mmpretrain',
    }
    assert there.description['layer_scale'] == 'folded into the projections'
    assert there.description['img_size'] == '32'
    again = convert_file(back.path, tmp_path / 'c.safetensors', 'timm')
    assert again.description == {**there.description, 'layout': 'timm'}


@pytest.mark.parametrize('ending', ['.pth', '.pt', '.safetensors'])
def test_files_hold_the_bits_and_no_more(source: Path, tmp_path: Path, ending: str):
    report = convert_file(source, tmp_path / f'a{ending}', 'timm')
    state = torch.load(source)['state_dict']
    del state['head.projection.weight']
    expected = convert_keys(state, 'mmpretrain', 'timm')
    if ending == '.safetensors':
        found = load_file(report.path)
    else:
        found = torch.load(report.path, weights_only=True)['state_dict']
    assert set(found) == set(expected)
    assert all(found[name].equal(value) for name, value in expected.items())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(report.path.stat().st_mode) == 0o666 & ~umask
    assert {path.name for path in tmp_path.iterdir()} == {source.name, f'a{ending}'}


def test_slices_are_written_without_what_they_are_cut_from(tmp_path: Path) -> None:
    weights = plain_mae.encoder_only(plain_mae.random_weights())
    large = torch.randn(1000, *weights['cls_token'].shape)
    weights['cls_token'] = large[3]
    torch.save(weights, tmp_path / 'a.pth')
    for name in ('b.pth', 'b.safetensors'):
        report = convert_file(tmp_path / 'a.pth', tmp_path / name, 'timm')
        assert report.path.stat().st_size < 0.9 * (tmp_path / 'a.pth').stat().st_size


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_the_host_loads_what_is_written(source: Path, tmp_path: Path, ending: str):
    official = convert_file(source, tmp_path / f'a{ending}', 'mae')
    back = convert_file(official.path, tmp_path / f'b{ending}', 'mmpretrain')
    original = vits.mmpretrain_vit(layer_scale_init_value=0.1)
    settings = dict(
        type='VisionTransformer',
        arch=vits.ARCH,
        img_size=vits.IMAGE,
        patch_size=vits.PATCH,
        out_type='raw',
    )
    if ending == '.pth':
        settings['init_cfg'] = dict(
            type='Pretrained', checkpoint=str(back.path), prefix='backbone.'
        )
    network = MODELS.build(settings)
    network.init_weights()
    if ending == '.safetensors':
        load_backbone(network, back.path)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            network(vits.images())[0], original(vits.images())[0], atol=1e-5, rtol=0
        )


def test_an_official_file_with_its_arguments(tmp_path: Path) -> None:
    weights = plain_mae.random_weights()
    content = {'model': weights, 'args': Namespace(lr=0.1), 'epoch': 3}
    torch.save(content, tmp_path / 'a.pth')
    report = convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth', 'mmpretrain')
    assert not report.left_out
    assert report.entries_left_out == ('args', 'epoch')
    assert report.description['epoch'] == '3'
    back = convert_file(report.path, tmp_path / 'c.pth', 'mae')
    found = torch.load(back.path, weights_only=True)['model']
    assert all(found[name].equal(value) for name, value in weights.items())


class Code:
    """Would run when unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, ('exit 1',)


def write_code(path: Path) -> None:
    torch.save({'state_dict': plain_mae.random_weights(), 'extra': Code()}, path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({'model': Code()}))


def write_torn(path: Path) -> None:
    torch.save({'state_dict': plain_mae.random_weights()}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def writes(state: dict) -> Callable[[Path], None]:
    return lambda path: torch.save({'state_dict': state}, path)


def only_decoder() -> dict:
    weights = convert_keys(plain_mae.random_weights(), 'mae', 'mmpretrain')
    return {k: v for k, v in weights.items() if k.startswith('neck.')}


BAD = {
    'code': (write_code, r'carries pickled code \((posix|nt)\.system\)'),
    'pickle': (write_pickle, r'is a pickle \(protocol \d\) .* was not loaded'),
    'torn': (write_torn, 'is incomplete or not a checkpoint'),
    'empty': (lambda path: path.touch(), 'is incomplete or not a checkpoint'),
    'missing': (lambda path: None, 'does not exist or is not a file'),
    'teacher': (
        writes({'target_generator.visual.proj': torch.ones(2)}),
        "of a teacher alone .*: give the student's checkpoint",
    ),
    'no backbone': (writes(only_decoder()), 'there is no backbone in it'),
    'projection': (
        writes({'head.projection.weight': torch.ones(2)}),
        'none of the names .* is of a known layout',
    ),
    'convolutions': (
        writes({'layer1.0.conv1.weight': torch.ones(2)}),
        'none of the names .* is of a known layout',
    ),
    'no tensors': (lambda path: torch.save({'meta': {}}, path), 'has no weights'),
}


@pytest.mark.parametrize('kind', BAD)
def test_bad_files_are_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    write, words = BAD[kind]
    path = tmp_path / 'bad.pth'
    write(path)
    with pytest.raises(UserError, match=words) as caught:
        convert_file(path, tmp_path / 'out.pth', 'timm')
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out.pth').exists()


def test_bad_settings_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'one of \.safetensors, \.pth, \.pt'):
        convert_file(source, tmp_path / 'a.onnx', 'timm')
    with pytest.raises(UserError, match='is SOURCE itself'):
        convert_file(source, source, 'timm')
    with pytest.raises(UserError, match='img_size=30 is not a multiple of patch'):
        convert_file(source, tmp_path / 'a.pth', 'timm', img_size=30)
    with pytest.raises(UserError, match="target='beit' is not a known layout"):
        convert_file(source, tmp_path / 'a.pth', 'beit')
    before = (tmp_path / 'old.pth').write_bytes(b'old')
    torn = tmp_path / 'torn.pth'
    write_torn(torn)
    with pytest.raises(UserError):
        convert_file(torn, tmp_path / 'old.pth', 'timm')
    assert (tmp_path / 'old.pth').stat().st_size == before


class TestTool:
    def run(self, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
        tool = Path(__file__).parents[2] / 'tools' / 'convert.py'
        monkeypatch.setattr(sys, 'argv', ['convert.py', *map(str, words)])
        runpy.run_path(str(tool), run_name='__main__')

    def test_converts_and_reports(self, source, tmp_path, monkeypatch, capsys) -> None:
        dest = tmp_path / 'a.safetensors'
        self.run(
            monkeypatch, source, dest, '--to', 'mmseg', '--img-size', 32,
            '--patch-size', 8,
        )  # fmt: skip
        weights = load_file(dest)
        assert weights['patch_embed.projection.weight'].shape[-1] == 8
        assert weights['pos_embed'].shape[1] == 17
        assert 'left out, not part of the encoder: head.proj' in capsys.readouterr().out

    def test_tells_what_is_wrong(self, tmp_path, monkeypatch, capsys) -> None:
        with pytest.raises(SystemExit) as caught:
            self.run(
                monkeypatch, tmp_path / 'no.pth', tmp_path / 'a.pth', '--to', 'mae'
            )
        assert caught.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith('error: checkpoint ')
        assert error.count('\n') == 1
