"""Reading local files of weights: safe, and clear where something is wrong."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors.torch import save_file

from medic_mm.models.teachers.loading import names_a_file, read_weight_file

WEIGHTS = {'a.weight': torch.arange(6.0).view(2, 3), 'count': torch.tensor(3)}


class Payload:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path('run_by_unpickling'),))


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_weights_come_back_in_fp32(tmp_path, suffix):
    path = tmp_path / f'w{suffix}'
    half = {'a.weight': WEIGHTS['a.weight'].half(), 'count': WEIGHTS['count']}
    save_file(half, path) if suffix == '.safetensors' else torch.save(half, path)
    file = read_weight_file(path)
    assert file.state_dict['a.weight'].dtype == torch.float32
    assert file.state_dict['a.weight'].equal(WEIGHTS['a.weight'])
    assert file.state_dict['count'].item() == 3
    assert file.quick_gelu is None


def test_the_hash_is_logged(tmp_path):
    path = tmp_path / 'w.pt'
    torch.save(WEIGHTS, path)
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger, handler = MMLogger.get_current_instance(), Keep()
    logger.addHandler(handler)
    try:
        read_weight_file(path)
    finally:
        logger.removeHandler(handler)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert any(expected in line and str(path) in line for line in records)


def test_pickled_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': WEIGHTS, 'extra': Payload()}, 'w.pt')
    with pytest.raises(RuntimeError, match=r'w\.pt carries pickled code'):
        read_weight_file('w.pt')
    assert not Path('run_by_unpickling').exists()


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt'])
def test_a_torn_file_is_named(tmp_path, suffix):
    path = tmp_path / f'torn{suffix}'
    large = {'a': torch.zeros(4000)}
    save_file(large, path) if suffix == '.safetensors' else torch.save(large, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(RuntimeError, match=f'torn{suffix}'):
        read_weight_file(path)


def test_a_torchscript_archive_without_its_code_is_named(tmp_path):
    import zipfile

    path = tmp_path / 'hollow.pt'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('hollow/constants.pkl', b'')
    with pytest.raises(RuntimeError, match=r'hollow\.pt looks like a TorchScript'):
        read_weight_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'weights=.*none\.pt'):
        read_weight_file(tmp_path / 'none.pt')


def test_files_and_tags_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('weights').touch()
    for name in ('w.safetensors', 'w.pt', './openai', 'data/openai', 'weights'):
        assert names_a_file(name) or name == './openai'
    for tag in ('openai', 'laion2b_s34b_b88k', 'commonpool_m_clip_s128m_b4k'):
        assert not names_a_file(tag)
