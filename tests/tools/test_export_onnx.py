"""tools/export_onnx.py: what onnxruntime computes, and a sentence without packages."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from exported import MASKED, TINYMIM, images, make_run

from medic_mm.cli.export_onnx import export_onnx
from medic_mm.errors import UserError


@pytest.mark.parametrize('backbone', [MASKED, TINYMIM], ids=['masked', 'tinymim'])
@torch.no_grad()
def test_outputs_equal_those_of_the_source(backbone: dict, tmp_path: Path) -> None:
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    path, source = make_run(tmp_path, backbone)
    written = export_onnx(path, tmp_path / 'deep' / 'vit.onnx')
    assert written.difference < 1e-4 and written.runner == 'onnxruntime'
    session = runtime.InferenceSession(str(written.path))
    for size in (1, 5):
        found = session.run(None, {'images': images(size).numpy()})
        tokens = source(images(size))[-1]
        for got, expected in zip(found, (tokens[:, 0], tokens[:, 1:]), strict=True):
            assert (torch.from_numpy(got) - expected).abs().max() < 1e-4
    entries = {e.key: e.value for e in onnx.load(written.path).metadata_props}
    assert json.loads(entries['medic_mm'])['input_size'] == [3, 32, 32]


@torch.no_grad()
def test_reference_evaluator_where_there_is_no_onnxruntime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    path, _ = make_run(tmp_path, MASKED)
    written = export_onnx(path, tmp_path / 'vit.onnx')
    assert written.runner == "onnx's reference evaluator"
    assert written.difference < 1e-4


def test_missing_packages_and_wrong_names_get_one_sentence(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, _ = make_run(tmp_path, MASKED)
    monkeypatch.setitem(sys.modules, 'onnx', None)
    words = ['export_onnx.py', str(path), str(tmp_path / 'vit.onnx')]
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(SystemExit):
        runpy.run_path(str(root / 'tools' / 'export_onnx.py'), run_name='__main__')
    error = capsys.readouterr().err
    assert error.startswith('error: ONNX export needs the package onnx: pip install')
    assert error.count('\n') == 1
    with pytest.raises(UserError, match=r'use one with \.onnx'):
        export_onnx(path, tmp_path / 'vit.pth')
    with pytest.raises(UserError, match='is not a file, a folder or an id'):
        export_onnx(tmp_path / 'none.pth', tmp_path / 'vit.onnx')
