"""The one reader: each kind of file read right, damage and code refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medic_mm.checkpoints import read_checkpoint, read_state_dict
from medic_mm.checkpoints.pickled import TorchScript
from medic_mm.errors import FileError, MissingFileError

WEIGHTS = {'a': torch.arange(60_000.0).view(200, 300), 'b': torch.ones(3).half()}


def same(found: dict[str, Tensor]) -> bool:
    return list(found) == list(WEIGHTS) and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype
        for k, v in WEIGHTS.items()
    )


def deflated(source: Path, path: Path) -> Path:
    """The same archive with compressed entries, as a tool that repacks makes it."""
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(WEIGHTS, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.mark.parametrize('mmap', [False, True])
def test_compressed_entries_are_read_right(file: Path, mmap: bool) -> None:
    assert same(read_checkpoint(deflated(file, file.with_name('z.pth')), mmap))


@pytest.mark.parametrize('mmap', [False, True])
def test_a_flipped_bit_anywhere_in_an_entry_is_found(file: Path, mmap: bool) -> None:
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if not entry.file_size:
                continue
            # the local header has 30 bytes, a name and the extra field that aligns
            name, extra = struct.unpack('<HH', whole[entry.header_offset :][26:30])
            start = entry.header_offset + 30 + name + extra
            for place in (start, start + entry.file_size - 1):
                damaged = bytearray(whole)
                damaged[place] ^= 4
                file.write_bytes(damaged)
                with pytest.raises(FileError, match=r'a\.pth is damaged.*checksum'):
                    read_checkpoint(file, mmap)


@pytest.mark.parametrize('share', [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_torn_files_end_in_one_sentence(
    tmp_path: Path, share: float, kind: str
) -> None:
    path = tmp_path / f'a.{"safetensors" if kind == "safetensors" else "pth"}'
    if kind == 'safetensors':
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == 'zip')
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileError, match=str(path)) as caught:
        read_checkpoint(path)
    assert '\n' not in str(caught.value)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_checkpoint(tmp_path / 'a.pth', mmap=True))


def test_two_entries_of_a_name(file: Path) -> None:
    with zipfile.ZipFile(file, 'a') as archive, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        archive.writestr('a/data.pkl', archive.read('a/data.pkl'))
    with pytest.raises(FileError, match=r'several entries.*a/data\.pkl'):
        read_checkpoint(file)


def test_the_content_decides_not_the_ending(tmp_path: Path, file: Path) -> None:
    save_file(WEIGHTS, tmp_path / 'b.bin')
    assert same(read_checkpoint(tmp_path / 'b.bin'))
    assert same(read_checkpoint(file.rename(tmp_path / 'c.safetensors')))


def test_doubled_name_in_the_header_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / 'a.safetensors'
    entry = json.dumps(dict(dtype='F32', shape=[1], data_offsets=[0, 4]))
    second = entry.replace('[0, 4]', '[4, 8]')
    for header in (
        f'{{"a": {entry}, "a": {second}}}',
        f'{{"a": {entry}, "a": {entry}}}',
    ):
        path.write_bytes(struct.pack('<Q', len(header)) + header.encode() + bytes(8))
        with pytest.raises(FileError, match='it has a twice'):
            read_checkpoint(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match='does not exist'):
        read_checkpoint(tmp_path / 'a.pth')
    with pytest.raises(MissingFileError, match='is not a file'):
        read_checkpoint(tmp_path)


class Written:
    """Pickled under the name of another class, which need not be installed here."""

    def __init__(self, call: tuple) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


def named(module: str, name: str, base: type = object) -> type:
    """An importable class of a package that is not installed."""
    made = type(name, (base,), {'__module__': module})
    parent = ''
    for part in module.split('.'):
        parent = f'{parent}.{part}'.lstrip('.')
        sys.modules.setdefault(parent, types.ModuleType(parent))
    setattr(sys.modules[module], name, made)
    return made


@pytest.fixture
def packages() -> None:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


VALUES = {
    'namespace': (argparse.Namespace(lr=0.1, model='vit'), None),
    'path': (pathlib.PosixPath('out/a.pth'), 'out/a.pth'),
    'paths': ([(0.5, pathlib.PosixPath('a'))], None),
    'ordered': (collections.OrderedDict(a=1), {'a': 1}),
    'counter': (collections.Counter('aab'), {'a': 2, 'b': 1}),
    'default': (collections.defaultdict(list, a=[1]), {'a': [1]}),
    'deque': (collections.deque([1, 2], 5), [1, 2]),
    'set': ({1, 2}, None),
    'frozen': (frozenset({1}), None),
    'range': (range(3), None),
    'complex': (1 + 2j, None),
    'bytes': (b'ab\xff', None),
    'simple': (types.SimpleNamespace(a=1), None),
    'date': (datetime.datetime(2024, 1, 2, 3), None),
    'delta': (datetime.timedelta(3), None),
    'version': (torch.__version__, str(torch.__version__)),
    'device': (torch.device('cpu'), None),
    'dtype': (torch.float16, None),
    'numpy number': (np.float32(0.5), 0.5),
    'numpy bool': (np.bool_(True), True),
    'numpy text': (np.str_('a'), 'a'),
    'numpy texts': (np.array(['a', 'bc']), None),
}


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', VALUES)
def test_plain_values_next_to_the_weights(
    tmp_path: Path, kind: str, legacy: bool
) -> None:
    value, expected = VALUES[kind]
    path = tmp_path / 'a.pth'
    torch.save(
        {'model': WEIGHTS, 'extra': {'value': value}},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    found = read_checkpoint(path)
    assert same(found['model'])
    extra = found['extra']['value']
    if isinstance(value, np.ndarray):
        assert extra.tolist() == value.tolist()
        return
    if kind == 'path':
        assert str(extra) == expected
    elif kind == 'paths':
        assert [(loss, str(path)) for loss, path in extra] == [(0.5, 'a')]
    elif kind == 'deque':
        assert list(extra) == expected
    else:
        assert extra == (value if expected is None else expected)


def test_paths_of_windows(tmp_path: Path, packages: None) -> None:
    written = Written((pathlib.PureWindowsPath, ('C:\\', 'runs', 'a.pth')))
    torch.save({'model': WEIGHTS, 'best': written}, tmp_path / 'a.pth')
    content = (tmp_path / 'a.pth').read_bytes()
    assert b'PureWindowsPath' in content
    best = read_checkpoint(tmp_path / 'a.pth')['best']
    assert best.parts == ('C:\\', 'runs', 'a.pth')


def test_settings_of_packages_that_are_not_installed(
    tmp_path: Path, packages: None
) -> None:
    node = named('yacs.config', 'CfgNode', dict)
    config = node(MODEL=node(DEPTH=12))
    config.__dict__['__immutable__'] = True
    torch.save({'model': WEIGHTS, 'config': config}, tmp_path / 'a.pth')
    del sys.modules['yacs.config'], sys.modules['yacs']
    found = read_checkpoint(tmp_path / 'a.pth')
    assert found['config'] == {'MODEL': {'DEPTH': 12}}


def test_a_released_training_checkpoint(tmp_path: Path) -> None:
    """As aicip/MEDiC and drkostas/MaskDistill-PyTorch write them."""
    path = tmp_path / 'checkpoint.pth'
    torch.save(
        {
            'epoch': 290,
            'model': {f'module.student.{k}': v for k, v in WEIGHTS.items()},
            'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-3}]},
            'args': argparse.Namespace(output_dir=pathlib.PosixPath('out')),
            'top_k_checkpoints': [(0.31, pathlib.PosixPath('out/a.pth'))],
        },
        path,
    )
    assert set(read_state_dict(path)) == {f'module.student.{k}' for k in WEIGHTS}


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Scripted(nn.Module):
    """Nested modules, shared and half weights, buffers, and values of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.blocks = nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(3)])
        self.blocks[1].weight = self.blocks[0].weight
        self.halves = nn.Parameter(torch.ones(2).half())
        self.register_buffer('index', torch.arange(4))
        self.act = Gate()
        self.attribute = torch.zeros(2)
        self.names = ['a', 'b']
        self.sizes = {'a': 1}

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.act(self.linear(x))


@pytest.fixture(scope='module')
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('script') / 'script.pt'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(Scripted()).save(str(path))
    return path


@pytest.mark.filterwarnings('ignore:.*torch.jit')
def test_torchscript_is_read_as_torch_reads_it(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = torch.jit.load(str(script)).state_dict()
    monkeypatch.setattr(torch.jit, 'load', None)
    found = read_checkpoint(script)
    assert isinstance(found, TorchScript)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=0)
    assert {'Gate', 'Linear', 'LayerNorm'} <= found.kinds


def test_torchscript_with_code(script: Path, tmp_path: Path) -> None:
    path, ran = tmp_path / 'evil.pt', tmp_path / 'ran'
    payload = pickle.dumps(Written((Path.touch, (ran,))), protocol=2)
    with zipfile.ZipFile(script) as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            evil = name.endswith('/data.pkl')
            new.writestr(name, payload if evil else old.read(name))
    with pytest.raises(FileError, match='cannot be read') as caught:
        read_checkpoint(path)
    assert not ran.exists()
    assert 'UnpicklingError' in str(caught.value)


def test_what_weights_must_be(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    for content, sentence in (
        ({'model': {0: torch.ones(2)}}, r'not texts \(0\)'),
        ({0: torch.ones(2), 'a': torch.ones(2)}, r'not texts \(0\)'),
        ({'model': {'a': torch.ones(2), 'b': np.ones(2)}}, r'numpy arrays.*\(b\)'),
        ({'a': torch.ones(2), 'b': np.ones(2)}, r'numpy arrays.*\(b\)'),
        ({'model': {}}, 'no weights: it holds nothing'),
        ({'epoch': 3}, 'no weights: it holds epoch'),
    ):
        torch.save(content, path)
        with pytest.raises(FileError, match=sentence):
            read_state_dict(path)
    for content in ([1], torch.ones(2), 'a', 3, None):
        torch.save(content, path)
        with pytest.raises(FileError, match='not a dictionary of weights'):
            read_state_dict(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2))
    for content in (b'', b'\0', b'{}', b'<html>', buffer.getvalue(), b'PK\x03\x04'):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r'a\.pth'):
            read_checkpoint(path)
