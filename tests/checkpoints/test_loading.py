"""Reading checkpoints: everything the runner writes, and nothing that runs code."""

from __future__ import annotations

import builtins
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save_file
from torch import Tensor

from medic_mm.checkpoints import read_checkpoint, read_state_dict


def runner_checkpoint() -> dict:
    """What MMEngine's runner writes: weights, optimizer, meta and the message hub."""
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    hub = MessageHub(f'reading_{len(MessageHub._instance_dict)}')
    hub.update_scalar('train/loss', 2.5)
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('knn/step', 0)
    hub.update_info('epoch', 3)
    hub.update_info('score', np.float64(0.5))
    hub.update_info('array', np.arange(3, dtype=np.float32))
    return dict(
        meta=dict(epoch=3, cfg='a = 1', dataset_meta=dict(classes=('a', 'b'))),
        state_dict=OrderedDict({'backbone.weight': weight.detach()}),
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=4, _last_value=[0.1])],
    )


def test_all_that_the_runner_writes(tmp_path: Path) -> None:
    path = tmp_path / 'epoch_3.pth'
    torch.save(runner_checkpoint(), path)
    found = read_checkpoint(path)
    assert found['meta']['dataset_meta']['classes'] == ('a', 'b')
    expected = runner_checkpoint()['state_dict']['backbone.weight']
    assert torch.equal(found['state_dict']['backbone.weight'], expected)
    history = found['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.data[0].tolist() == [2.5, 1.5]
    assert history.statistics('mean') == 2.0
    assert found['message_hub']['runtime_info']['score'] == 0.5
    assert found['message_hub']['runtime_info']['array'].tolist() == [0, 1, 2]
    assert found['optimizer']['state'][0]['exp_avg'].shape == (2, 3)


def test_allowance_ends_with_the_reading(tmp_path: Path) -> None:
    torch.save(runner_checkpoint(), tmp_path / 'a.pth')
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / 'a.pth')
    assert set(torch.serialization.get_safe_globals()) == before


class Evil:
    """Unpickling calls ``function(*args)``."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def make_file(path: str) -> None:
    Path(path).write_text('ran')


@pytest.mark.parametrize('place', ['state_dict', 'meta'])
def test_code_is_refused_and_does_not_run(tmp_path: Path, place: str) -> None:
    target = tmp_path / 'ran'
    for number, evil in enumerate(
        [
            Evil(os.system, f'touch {target}'),
            Evil(make_file, str(target)),
            Evil(eval, f'open({str(target)!r}, "w")'),
            Evil(getattr, Tensor, '__subclasses__'),
            Evil(getattr, HistoryBuffer, '__init__'),
            Evil(getattr, HistoryBuffer, '__subclasses__'),
            Evil(builtins.__import__, 'os'),
        ]
    ):
        path = tmp_path / f'{number}.pth'
        torch.save({'state_dict': {'w': torch.ones(1)}, place: evil}, path)
        with pytest.raises(RuntimeError, match=f'{path} carries pickled code'):
            read_checkpoint(path)
    assert not target.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'old.pth'
    path.write_bytes(pickle.dumps({'state_dict': Evil(os.system, 'true')}))
    with pytest.raises(RuntimeError, match=str(path)):
        read_checkpoint(path)


@pytest.mark.parametrize('kept', [0, 1, 100, 0.5, 0.99])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_torn_files(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f'torn{suffix}'
    weights = {'w': torch.randn(300)}
    (save_file if suffix == '.safetensors' else torch.save)(weights, path)
    whole = path.read_bytes()
    length = kept if isinstance(kept, int) else int(len(whole) * kept)
    path.write_bytes(whole[:length])
    with pytest.raises(RuntimeError, match=f'{path} is incomplete or not a '):
        read_checkpoint(path)


def test_other_files(tmp_path: Path) -> None:
    text = tmp_path / 'page.pth'
    text.write_text('<html>Not found</html>')
    with pytest.raises(RuntimeError, match='incomplete or not a checkpoint'):
        read_checkpoint(text)
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    with pytest.raises(RuntimeError, match='holds a list, not a dictionary'):
        read_checkpoint(tmp_path / 'list.pth')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='is not a file'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('key', ['state_dict', 'model', 'module', None])
def test_weights_wherever_they_are(tmp_path: Path, key: str | None) -> None:
    weights: dict[str, Tensor] = {'a.w': torch.randn(2), 'b.w': torch.randn(3)}
    content = {key: weights, 'epoch': 3} if key else {**weights, 'epoch': 3}
    torch.save(content, tmp_path / 'a.pth')
    found = read_state_dict(tmp_path / 'a.pth')
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_safetensors(tmp_path: Path) -> None:
    weights = {'a.w': torch.randn(2), 'b.w': torch.randn(3).half()}
    save_file(weights, tmp_path / 'a.safetensors', metadata={'from': 'test'})
    found = read_state_dict(tmp_path / 'a.safetensors')
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert found['b.w'].dtype == torch.float16


def test_no_weights(tmp_path: Path) -> None:
    torch.save({'epoch': 3, 'best': 1.0}, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match='has no weights: it holds epoch, best'):
        read_state_dict(tmp_path / 'a.pth')


def test_plain_weights_need_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({'w': torch.ones(1)}, tmp_path / 'a.pth')
    torch.save(runner_checkpoint(), tmp_path / 'b.pth')
    monkeypatch.setitem(sys.modules, 'mmengine.logging', None)  # as if not installed
    assert read_checkpoint(tmp_path / 'a.pth')['w'] == 1
    with pytest.raises(RuntimeError, match='HistoryBuffer'):
        read_checkpoint(tmp_path / 'b.pth')
