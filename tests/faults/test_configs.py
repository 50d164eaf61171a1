"""Changed configs: legal, refused by a sentence, or an error behind its place."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mutations import KINDS, Mutation, mutate, mutations, outcome_of, small_config

from medic_mm.settings.run_config import setting_problems

SEED = 20


def shipped(root: Path) -> list[Path]:
    configs = sorted((root / 'configs').rglob('*.py'))
    return [path for path in configs if '_base_' not in path.parts]


def check(root: Path, count: int, seed: int, capsys: pytest.CaptureFixture) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    configs: dict[Path, object] = {}
    for mutation in mutations(shipped(root), count, seed):
        cfg = configs.setdefault(mutation.path, small_config(mutation.path))
        outcome = outcome_of(mutate(cfg, mutation), mutation, capsys)
        counts[mutation.kind, outcome.what] += 1
        if not right(mutation, outcome):
            wrong.append(f'{described(mutation)}: {outcome.what} {outcome.text[-300:]}')
    with capsys.disabled():
        print()
        for (kind, what), number in sorted(counts.items()):
            print(f'{kind:>14} {what:<8} {number:>5}')
    assert sum(counts.values()) == count
    assert not wrong, '\n'.join(wrong)


def right(mutation: Mutation, outcome) -> bool:
    """Whether the outcome is one of the kind's, and names the place of the change."""
    if outcome.what not in KINDS[mutation.kind]:
        return False
    if outcome.what == 'built':
        return True
    above = ['.'.join(mutation.place[:n]) for n in range(1, len(mutation.place))]
    near, text = ('.'.join(mutation.place[:-1])), outcome.text
    # a component above may refuse it, and names the setting
    return near in text or any(f'{place} (' in text for place in above)


def described(mutation: Mutation) -> str:
    place = '.'.join(mutation.place)
    return f'{mutation.path.stem[:40]} {mutation.kind} {place} {mutation.value!r}'


def test_unchanged_configs_pass(root: Path) -> None:
    """Else every change would look refused."""
    for path in shipped(root)[::7]:
        assert setting_problems(small_config(path)) == []


@pytest.mark.faults
def test_all_unchanged_configs_pass(root: Path) -> None:
    for path in shipped(root):
        assert setting_problems(Config.fromfile(path)) == []
        assert setting_problems(small_config(path)) == []


def test_two_hundred_changes(root: Path, capsys: pytest.CaptureFixture) -> None:
    check(root, 200, SEED, capsys)


@pytest.mark.faults
@pytest.mark.parametrize('part', range(10))
def test_two_thousand_changes(root: Path, part: int, capsys) -> None:
    check(root, 200, SEED + 1 + part, capsys)


@pytest.mark.faults
@pytest.mark.parametrize('package', ['mmpretrain', 'mmseg'])
def test_configs_of_openmmlab_pass(package: str) -> None:
    """Nothing is refused that is right; one file does have a misspelt name."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f'{package} is not installed')
    folder = Path(found.origin).parent / '.mim' / 'configs'
    files = [
        path for path in sorted(folder.rglob('*.py')) if '_base_' not in path.parts
    ]
    refused = {}
    for path in files:
        try:
            cfg = Config.fromfile(path)
        except Exception:  # other packages are missing
            continue
        if problems := setting_problems(cfg):
            refused[path.name] = problems
    misspelt = 'bisenetv2_fcn_4xb4-ohem-160k_cityscapes-1024x1024.py'
    expected = ["the config has no setting 'models': did you mean 'model'?"]
    assert refused == ({misspelt: expected} if misspelt in refused else {})
