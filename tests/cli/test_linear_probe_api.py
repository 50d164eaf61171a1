"""The linear probe of a checkpoint's backbone: the tool end to end."""

from __future__ import annotations

import json
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from labelled import knn_hook_config, make_folder, training_config
from mmengine.config import Config

from medic_mm.cli.knn import evaluate_knn
from medic_mm.cli.linear_probe import BlockEncoder, evaluate_linear
from medic_mm.errors import UserError
from medic_mm.settings.student import load_student


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Config:
    folder = make_folder(tmp_path_factory.mktemp('labelled'))
    settings = training_config(folder, folder, [knn_hook_config(folder)])
    settings['model']['target_generator'] = dict(type='NoSuchTeacher')
    path = folder / 'config.py'
    Config(settings).dump(path)
    return Config.fromfile(path)


def test_every_block_against_the_network_run_by_hand(config):
    student = load_student(config, 'random')
    images = torch.randn(3, 3, 32, 32)
    backbone = student.backbone
    with torch.no_grad():
        found = BlockEncoder(student)(images)
        patches, _ = backbone.patch_embed(images)
        first = backbone.cls_token.expand(3, -1, -1)
        tokens = torch.cat([first, patches], dim=1) + backbone.pos_embed
        for number, layer in enumerate(backbone.layers, start=1):
            tokens = layer(tokens)
            last = number == len(backbone.layers)
            normed = (
                backbone.ln1(tokens) if last else F.layer_norm(tokens, (48,), eps=1e-6)
            )
            wanted = dict(cls=normed[:, 0], mean=normed[:, 1:].mean(dim=1))
            for name, value in wanted.items():
                torch.testing.assert_close(
                    found[f'{number}/{name}'], value, rtol=1e-3, atol=1e-4
                )


def test_last_block_and_knn_agree_with_the_other_ways(config):
    report = evaluate_linear(config, 'random', blocks=True, ks=(3,), epochs=20)
    last = max(row['block'] for row in report['linear'])
    plain = evaluate_linear(config, 'random', ks=(3,), epochs=20)
    assert [x for x in report['linear'] if x['block'] == last] == plain['linear']
    assert len(report['linear']) == 3 * last
    knn = evaluate_knn(config, 'random', ks=(3,))
    wanted = {row['features']: row['top1'] for row in knn['results']}
    for found in (report, plain):
        assert {row['features']: row['top1'] for row in found['knn']} == wanted
    # dark, grey and light images are told apart by a network that was never trained
    assert min(row['top1'] for row in plain['linear']) > 40


def test_tool(config, tmp_path, root, monkeypatch, capsys):
    out = tmp_path / 'report.json'
    words = [config.filename, 'random', '--features', 'mean', '--k', '--out', out]
    monkeypatch.setattr(sys, 'argv', ['linear_probe.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'linear_probe.py'), run_name='__main__')
    report = json.loads(out.read_text())
    (row,) = report['linear']
    assert f'{row["top1"]:.2f}' in capsys.readouterr().out
    assert (report['train_images'], report['num_classes']) == (15, 3)
    assert report['knn'] == []


def test_refuses_wrong_use(config):
    with pytest.raises(UserError, match='choose from cls, mean, cls'):
        evaluate_linear(config, 'random', features=['max'])
    with pytest.raises(UserError, match=r"'absent\.pth' does not exist"):
        evaluate_linear(config, 'absent.pth')
