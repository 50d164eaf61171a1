"""What OpenMMLab reads, from wherever it reads it, goes through the one reader."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from carrying_code import REFUSED
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

import medic_mm.registry  # noqa: F401  importing it registers the reader
from medic_mm.checkpoints.openmmlab import read_config_file
from medic_mm.errors import FileError, UserError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of the files in ``served``; torch keeps them here."""
    (tmp_path / 'served').mkdir()
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / 'served'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{found.server_port}'
        found.shutdown()


def test_values_of_a_file(tmp_path: Path) -> None:
    network, other = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save({'state_dict': network.state_dict()}, tmp_path / 'a.pth')
    load_checkpoint(other, str(tmp_path / 'a.pth'), strict=True)
    torch.testing.assert_close(other.state_dict(), network.state_dict())
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'meta')
    assert found['state_dict']['weight'].device.type == 'meta'


def test_a_file_of_a_server(server: str, tmp_path: Path) -> None:
    torch.save({'a': torch.arange(3)}, tmp_path / 'served' / 'good.pth')
    found = CheckpointLoader.load_checkpoint(f'{server}/good.pth')
    assert found['a'].tolist() == [0, 1, 2]
    content = {'meta': {}, 'state_dict': {'a': torch.ones(1)}}
    sentinel = tmp_path / 'ran'
    REFUSED['os.system'](content, tmp_path / 'served' / 'bad.pth', sentinel)
    with pytest.raises(FileError, match=r'bad\.pth carries pickled code'):
        CheckpointLoader.load_checkpoint(f'{server}/bad.pth')
    assert not sentinel.exists()
    with pytest.raises(FileError, match=r'absent\.pth cannot be fetched .*404'):
        CheckpointLoader.load_checkpoint(f'{server}/absent.pth')
    # what the sentence advises
    torch.save({'a': torch.zeros(1)}, tmp_path / 'hub' / 'checkpoints' / 'absent.pth')
    found = CheckpointLoader.load_checkpoint(f'{server}/absent.pth')
    assert found['a'].tolist() == [0]


@pytest.mark.parametrize('scheme', ['s3', 'petrel', 'a:s3', 'pavi', 'mmcls'])
def test_other_storages_are_refused(scheme: str) -> None:
    with pytest.raises(UserError, match='is not a local file: copy it to a disk'):
        CheckpointLoader.load_checkpoint(f'{scheme}://bucket/a.pth')


@pytest.mark.parametrize('scheme', ['open-mmlab', 'openmmlab', 'torchvision'])
def test_a_name_that_nobody_knows(scheme: str) -> None:
    with pytest.raises(UserError, match="is called 'no_such'"):
        CheckpointLoader.load_checkpoint(f'{scheme}://no_such')


def test_a_config_in_the_folder_of_a_run_is_not_run(tmp_path: Path) -> None:
    sentinel = tmp_path / 'ran'
    code = f'import os\nos.system("touch {sentinel}")\nmodel = dict(type="A")\n'
    value = f'model = dict(type=__import__("os").system("touch {sentinel}"))\n'
    for place in (tmp_path / 'run', tmp_path / 'run' / 'time' / 'vis_data'):
        place.mkdir(parents=True)
        (tmp_path / 'run' / 'last_checkpoint').touch()
        (place / 'config.py').write_text(code)
        with pytest.raises(FileError, match='is parsed and not run, but'):
            read_config_file(place / 'config.py')
        (place / 'config.py').write_text(value)
        assert 'os' in read_config_file(place / 'config.py')['model']['type']
    assert not sentinel.exists()
    own = tmp_path / 'own'
    own.mkdir()
    (own / 'base.py').write_text('a = 1\n')
    (own / 'config.py').write_text("_base_ = './base.py'\nb = 2\n")
    assert read_config_file(own / 'config.py') == {'a': 1, 'b': 2}
    assert os.path.exists(own)
