"""tools/extract_features.py: rows in order, layers and pools, and broken images."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from exported import MASKED, make_run
from PIL import Image
from safetensors import safe_open
from tiny_runs import write_images
from torch import Tensor, nn

import medic_mm
from medic_mm.cli.export_hf import export_hf


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six images in two folders, and a broken one between them."""
    folder = write_images(tmp_path / 'pictures', per_class=3)
    (folder / 'light' / '1.jpg').write_bytes(b'no image')
    return folder


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, nn.Module]:
    return make_run(tmp_path / 'run', MASKED)


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/extract_features.py as the command line does, on the CPU."""
    words = (*words, '--device', 'cpu', '--workers', 0)
    monkeypatch.setattr(sys, 'argv', ['extract_features.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'extract_features.py'), run_name='__main__')


def read(path: Path) -> tuple[Tensor, dict]:
    with safe_open(path, 'pt') as file:
        facts = {k: json.loads(v) for k, v in file.metadata().items() if k != 'format'}
        return file.get_tensor('features'), facts


def tokens_after(source: nn.Module, batch: Tensor, block: int) -> Tensor:
    """Tokens after a block of the source network, written out."""
    patches, _ = source.patch_embed(batch)
    tokens = torch.cat((source.cls_token.expand(len(batch), -1, -1), patches), 1)
    tokens = tokens + source.pos_embed
    for layer in source.layers[:block]:
        tokens = layer(tokens)
    return tokens


@torch.no_grad()
def test_rows_are_those_of_the_named_files(
    run: tuple[Path, nn.Module],
    pictures: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    checkpoint, source = run
    out = tmp_path / 'deep' / 'cls.safetensors'
    broken = pictures / 'light' / '1.jpg'
    # a broken file twice: rows must not shift
    words = (broken, pictures, '--checkpoint', checkpoint, '--out', out)
    run_tool(monkeypatch, root, *words, '--batch-size', 4)
    features, facts = read(out)
    names = [f'{name}/{i}.png' for name in ('dark', 'light') for i in range(3)]
    assert facts['files'] == [str(pictures / name) for name in names]
    assert list(facts['skipped']) == [str(broken)]
    transforms = medic_mm.load_model(checkpoint).transforms
    for row, name in zip(features, names, strict=True):
        expected = source(transforms(Image.open(pictures / name))[None])[-1][0, 0]
        assert (row - expected).abs().max() < 1e-5
    shown = capsys.readouterr()
    assert f'skipped {broken}' in shown.out and '1 skipped' in shown.out
    assert '\r' not in shown.out + shown.err  # no bar where the output is a file


@pytest.mark.parametrize('layer', [None, 1, 3])
@pytest.mark.parametrize('pool', ['cls', 'mean', 'tokens'])
@torch.no_grad()
def test_layers_and_pools(
    layer: int | None,
    pool: str,
    run: tuple[Path, nn.Module],
    pictures: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, source = run
    out = tmp_path / 'f.safetensors'
    words = (pictures / 'dark', '--checkpoint', checkpoint, '--out', out)
    chosen = () if layer is None else ('--layer', layer)
    run_tool(monkeypatch, root, *words, '--pool', pool, *chosen)
    transforms = medic_mm.load_model(checkpoint).transforms
    files = [pictures / 'dark' / f'{index}.png' for index in range(3)]
    batch = torch.stack([transforms(Image.open(file)) for file in files])
    tokens = source(batch)[-1] if layer is None else tokens_after(source, batch, layer)
    expected = dict(cls=tokens[:, 0], mean=tokens[:, 1:].mean(1), tokens=tokens)[pool]
    found, facts = read(out)
    assert (found - expected).abs().max() < 1e-5
    assert (facts['layer'], facts['pool']) == (layer, pool)


def test_folder_gives_the_same_as_its_checkpoint(
    run: tuple[Path, nn.Module],
    pictures: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_hf(run[0], tmp_path / 'folder')
    outs = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
    run_tool(monkeypatch, root, pictures, '--checkpoint', run[0], '--out', outs[0])
    words = (pictures, '--model', tmp_path / 'folder', '--out', outs[1])
    run_tool(monkeypatch, root, *words)
    assert (read(outs[0])[0] - read(outs[1])[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (('{empty}', '--out', '{out}'), 'holds no images'),
        (('{missing}', '--out', '{out}'), 'does not exist'),
        (('{text}', '--out', '{out}'), 'none of 1 files is a readable image'),
        (('{dark}', '--out', '{empty}/f.pt'), 'use a file name with .safetensors'),
        (('{dark}', '--out', '{out}', '--layer', '4'), 'layer=4 is out of range'),
        (('{dark}', '--out', '{out}', '--batch-size', '0'), 'batch_size=0'),
    ],
)
def test_bad_input_gets_one_sentence(
    words: tuple[str, ...],
    sentence: str,
    run: tuple[Path, nn.Module],
    pictures: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / 'empty').mkdir()
    places = dict(
        empty=tmp_path / 'empty',
        missing=tmp_path / 'missing.png',
        text=pictures / 'light' / '1.jpg',
        dark=pictures / 'dark',
        out=tmp_path / 'f.safetensors',
    )
    words = tuple(word.format(**places) for word in words)
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, root, *words, '--checkpoint', run[0])
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1, error
    assert sentence in error
    assert not places['out'].exists()
