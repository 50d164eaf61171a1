from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from medic_mm.engine.hooks.atomic_checkpoint_hook import (
    AtomicCheckpointHook,
    AtomicLocalBackend,
)

OLD, NEW = b'old' * 1000, b'new' * 1000


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> dict | list:
        value = (self.weight * torch.stack(inputs)).sum()
        return {'loss': value} if mode == 'loss' else [value]


class Rising:
    """A metric that is better each time."""

    def __init__(self) -> None:
        self.value = 0

    def evaluate(self, size: int) -> dict[str, float]:
        self.value += 1
        return {'acc': float(self.value)}

    def process(self, **kwargs: object) -> None:
        pass


def build_runner(work_dir: Path, epochs: int, validate: bool = False, **hook) -> Runner:
    loader = dict(
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=[dict(inputs=torch.ones(2))] * 4,
    )
    settings: dict = {}
    if validate:
        settings = dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=[])
    runner = Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='medic_mm.AtomicCheckpointHook', interval=1, **hook)
        ),
        experiment_name=f'{work_dir.name}_{os.urandom(4).hex()}',
        **settings,
    )
    if validate:
        rising = Rising()
        runner.val_loop.evaluator.evaluate = rising.evaluate
        runner.val_loop.evaluator.process = rising.process
    return runner


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def epoch_of(path: Path) -> int:
    return torch.load(path, weights_only=False)['meta']['epoch']


class Killed(BaseException):
    """No subclass of Exception, as SystemExit and KeyboardInterrupt are none."""


@pytest.mark.parametrize('moment', ['replace', 'fsync'])
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    target = tmp_path / 'a.pth'
    target.write_bytes(OLD)

    def fail(*args: object) -> None:
        raise Killed

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(Killed):
        AtomicLocalBackend().put(NEW, target)
    assert names(tmp_path) == ['a.pth']
    assert target.read_bytes() == OLD


def test_final_name_never_holds_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a kill would leave, at each call that touches the disk."""
    target = tmp_path / 'a.pth'
    target.write_bytes(OLD)
    seen: list[tuple[str, bytes, bytes]] = []
    real = {'fsync': os.fsync, 'replace': os.replace}

    def spy(name: str, *args: object) -> None:
        part = tmp_path / '.a.pth.part'
        seen.append(
            (name, target.read_bytes(), part.read_bytes() if part.exists() else b'')
        )
        real[name](*args)

    for name in real:
        monkeypatch.setattr(os, name, lambda *args, name=name: spy(name, *args))
    AtomicLocalBackend().put(NEW, target)
    # the whole new file is on disk before it takes the name; then the folder is synced
    assert seen == [('fsync', OLD, NEW), ('replace', OLD, NEW), ('fsync', NEW, b'')]
    assert names(tmp_path) == ['a.pth']


def test_left_over_part_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / '.a.txt.part').write_bytes(OLD)
    AtomicLocalBackend().put_text('new', tmp_path / 'a.txt')
    assert names(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'new'


def test_removal_waits_and_spares_what_was_replaced(tmp_path: Path) -> None:
    backend = AtomicLocalBackend()
    for name in ('gone', 'kept'):
        backend.put(OLD, tmp_path / name)
    (tmp_path / 'folder').mkdir()
    backend.remove(tmp_path / 'gone')
    backend.remove(tmp_path / 'kept')
    backend.rmtree(tmp_path / 'folder')
    assert names(tmp_path) == ['gone', 'kept']
    # another instance writes, as the Runner makes its own
    AtomicLocalBackend().put(NEW, tmp_path / 'kept')
    backend.remove_noted()
    assert [path.name for path in tmp_path.iterdir()] == ['kept']
    assert (tmp_path / 'kept').read_bytes() == NEW


def test_rotation_and_resume(tmp_path: Path) -> None:
    build_runner(tmp_path, epochs=4, max_keep_ckpts=2).train()
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == [
        'epoch_3.pth',
        'epoch_4.pth',
    ]
    pointer = tmp_path / 'last_checkpoint'
    assert pointer.read_text() == str(tmp_path / 'epoch_4.pth')

    runner = build_runner(tmp_path, epochs=5, max_keep_ckpts=2)
    runner._resume = True
    runner.train()
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == [
        'epoch_4.pth',
        'epoch_5.pth',
    ]
    assert epoch_of(tmp_path / 'epoch_5.pth') == 5


def test_old_checkpoint_stays_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def fail_at_third(source: Path, target: Path) -> None:
        if target.name == 'epoch_3.pth':
            raise OSError(28, 'No space left on device')
        real(source, target)

    monkeypatch.setattr(os, 'replace', fail_at_third)
    with pytest.raises(OSError, match='No space'):
        build_runner(tmp_path, epochs=3, max_keep_ckpts=1).train()
    files = [path for path in tmp_path.iterdir() if 'epoch' in path.name]
    assert files == [tmp_path / 'epoch_2.pth']
    assert epoch_of(files[0]) == 2
    assert (tmp_path / 'last_checkpoint').read_text() == str(files[0])


def test_host_hook_removes_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap that ours closes: if this fails, the host closed it, too."""

    def fail_at_third(self: LocalBackend, obj: bytes, filepath: str) -> None:
        if filepath.endswith('epoch_3.pth'):
            raise OSError(28, 'No space left on device')
        Path(filepath).write_bytes(obj)

    monkeypatch.setattr(LocalBackend, 'put', fail_at_third)
    runner = build_runner(tmp_path, epochs=3)
    runner._hooks = [h for h in runner.hooks if not isinstance(h, CheckpointHook)]
    runner.register_hook(CheckpointHook(interval=1, max_keep_ckpts=1))
    with pytest.raises(OSError, match='No space'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_best_checkpoint(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 3, validate=True, save_best='acc', max_keep_ckpts=1)
    runner.train()
    assert [path.name for path in sorted(tmp_path.glob('*.pth'))] == [
        'best_acc_epoch_3.pth',
        'epoch_3.pth',
    ]
    assert epoch_of(tmp_path / 'best_acc_epoch_3.pth') == 3


def test_other_storage_is_used_as_the_host_does() -> None:
    assert AtomicCheckpointHook().backend_args == {'backend': 'medic_mm_atomic'}
    assert AtomicCheckpointHook(out_dir='s3://bucket').backend_args is None
    given = dict(backend='petrel')
    assert AtomicCheckpointHook(backend_args=given).backend_args == given
