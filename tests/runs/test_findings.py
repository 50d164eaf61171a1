"""What is warned of, and that it is warned of then alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from labelled import make_folder, training_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from written_runs import WrittenRun, finished_run

from medic_mm.runs.findings import (
    Finding,
    find_warnings,
    other_warnings,
)
from medic_mm.runs.run import read_run

COUNTER = itertools.count()


def found(folder: Path) -> dict[str, Finding]:
    return {finding.kind: finding for finding in find_warnings(read_run(folder))}


def test_nothing_is_warned_of_in_a_good_run(tmp_path: Path) -> None:
    finished_run(tmp_path)
    assert found(tmp_path) == {}
    assert other_warnings(read_run(tmp_path)) == []


def nan_stop(run: WrittenRun) -> None:
    run.say('training diverged: at iteration 50, loss=nan: go on from', 'ERROR')


def nan_value(run: WrittenRun) -> None:
    run.scalars(45, loss=math.nan, iter=45)


def bad_features(run: WrittenRun) -> None:
    run.say('k-NN epoch 4: features have NaN or infinite values, so', 'WARNING')


def one_head(run: WrittenRun) -> None:
    run.scalars(45, used_heads_qk=1.49, iter=45)


def alike_heads(run: WrittenRun) -> None:
    run.scalars(45, cos_student_qk=0.991, iter=45)


def no_spread(run: WrittenRun) -> None:
    run.scalars(45, std_cls=0.019, iter=45)


def skipped(run: WrittenRun) -> None:
    run.say('1 of 6 training images were unreadable and skipped: a/0.png', 'WARNING')
    run.say(
        '2 of 6 training images were unreadable and skipped: a/0.png, a/2.png',
        'WARNING',
    )


def no_target(run: WrittenRun) -> None:
    run.say('3 images could not be read and have no teacher output, first', 'WARNING')


def lost_checkpoint(run: WrittenRun) -> None:
    (run.folder / 'epoch_4.pth').unlink()


def all_lost(run: WrittenRun) -> None:
    (run.folder / 'epoch_4.pth').unlink()
    (run.folder / 'last_checkpoint').unlink()


def lost_lines(run: WrittenRun) -> None:
    run.scalars(60, loss=1.0, iter=60)


def pause(run: WrittenRun) -> None:
    run.say('Exp name', wait=1900)


def torn(run: WrittenRun) -> None:
    with (run.data / 'scalars.json').open('a') as file:
        file.write('{"loss": 0.1, "st')


CASES: dict[Callable, tuple[str, bool, str]] = {
    nan_stop: ('nan', True, 'at iteration 50, loss=nan'),
    nan_value: ('not-finite', True, 'loss (first at step 45)'),
    bad_features: ('bad-features', True, 'k-NN evaluation met'),
    one_head: ('used-heads', True, 'used_heads_qk ended at 1.49'),
    alike_heads: ('alike-heads', True, 'cos_student_qk ended at 0.9910'),
    no_spread: ('no-spread', True, 'std_cls ended at 0.0190'),
    skipped: ('skipped', True, '2 of 6 training images could not be read: a/0.png, a/'),
    no_target: ('no-target', True, '3 images have no output'),
    lost_checkpoint: ('checkpoint', True, 'last_checkpoint names epoch_4.pth'),
    all_lost: ('checkpoint', True, 'the folder has none'),
    lost_lines: ('gap', True, 'No scalars from iteration 40 to 60'),
    pause: ('pause', False, 'silent for 32 minutes from 2026-01-02 at 03:05'),
    torn: ('torn', False, '1 line(s) of the scalars'),
}


@pytest.mark.parametrize('spoil', CASES, ids=lambda case: case.__name__)
def test_each_problem_is_told_of_alone(spoil: Callable, tmp_path: Path) -> None:
    spoil(finished_run(tmp_path))
    kind, serious, words = CASES[spoil]
    findings = found(tmp_path)
    assert list(findings) == [kind]
    assert findings[kind].serious is serious
    assert words in findings[kind].what
    for sentence in (findings[kind].what, findings[kind].meaning):
        assert sentence[0].isupper() or sentence[0].isdigit() or '_' in sentence
        assert sentence.endswith('.')
    assert other_warnings(read_run(tmp_path)) == []


@pytest.mark.parametrize(
    'values',
    [dict(used_heads_qk=1.51), dict(cos_student_qk=0.989), dict(std_cls=0.021)],
)
def test_thresholds(values: dict, tmp_path: Path) -> None:
    finished_run(tmp_path).scalars(45, iter=45, **values)
    assert found(tmp_path) == {}


def test_a_run_that_started_just_now(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    assert list(found(tmp_path)) == ['unfinished']
    # nothing is trained yet: no spread says nothing
    run.scalars(5, std_cls=0.001, iter=5)
    findings = found(tmp_path)
    assert list(findings) == ['unfinished']
    assert 'after 0 of 4 epochs' in findings['unfinished'].what


def test_a_moved_folder_has_its_checkpoint(tmp_path: Path) -> None:
    finished_run(tmp_path)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_4.pth')
    assert found(tmp_path) == {}


def test_a_resumed_run_is_no_restart(tmp_path: Path) -> None:
    WrittenRun(tmp_path).train(1, 3)
    second = WrittenRun(tmp_path, begin='20260103_000000')
    second.say('resumed epoch: 2, iter: 20')
    second.train(3, 4)
    second.save(4)
    findings = found(tmp_path)
    assert list(findings) == ['resumed']
    assert 'on 2026-01-03 at 00:00, after 2 epochs and 20' in findings['resumed'].what
    assert not findings['resumed'].serious


def test_a_restart_is_told_of(tmp_path: Path) -> None:
    WrittenRun(tmp_path).train(1, 3)
    second = WrittenRun(tmp_path, begin='20260103_000000')
    second.train(1, 4)
    second.save(4)
    assert list(found(tmp_path)) == ['restarted']
    # a start that trained nothing spoils nothing
    for path in sorted(tmp_path.glob('20260102*/vis_data/scalars.json')):
        path.unlink()
    assert found(tmp_path) == {}


def test_other_warnings_are_counted(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for _ in range(3):
        run.say('a component is deprecated', 'WARNING')
    assert other_warnings(read_run(tmp_path)) == [('a component is deprecated', 3)]


class Break(Hook):
    """Spoils the weights after the first epoch."""

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == 1:
            torch.nn.init.constant_(runner.model.backbone.ln1.weight, math.nan)


@pytest.mark.parametrize('broken', [False, True])
def test_a_real_run_that_diverges(broken: bool, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / 'images')
    hooks = [
        dict(type='medic_mm.StopOnNaNHook', interval=1),
        dict(type='medic_mm.SkippedImagesHook'),
    ]
    config = training_config(folder, tmp_path / 'run', hooks)
    load = dict(type='medic_mm.LoadReadableImage')
    config['train_dataloader']['dataset']['pipeline'][0] = load
    config.update(
        experiment_name=f'findings_{next(COUNTER)}',
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='medic_mm.AtomicCheckpointHook', interval=1),
        ),
        log_level='INFO',
    )
    runner = Runner.from_cfg(Config(config))
    if not broken:
        runner.train()
        run = read_run(tmp_path / 'run')
        assert (run.done, run.planned, run.finished) == (2, 2, True)
        assert [p.name for p in run.checkpoints] == ['epoch_1.pth', 'epoch_2.pth']
        assert [step for step, _ in run.curves['loss']] == list(range(1, 7))
        assert 'PyTorch' in run.environment
        # heads of a network that has hardly begun are alike, and it is no bad run
        assert found(tmp_path / 'run') == {}
        return
    runner.register_hook(Break())
    (folder / 'train' / 'dark' / '0.png').write_bytes(b'no image')
    with pytest.raises(FloatingPointError):
        runner.train()
    findings = found(tmp_path / 'run')
    assert {'nan', 'unfinished'} <= findings.keys()
    assert 'at iteration 4, ' in findings['nan'].what
    assert 'after 1 of 2 epochs' in findings['unfinished'].what
    assert '1 of 15 training images' in findings['skipped'].what
    assert str(Path('dark', '0.png')) in findings['skipped'].what
