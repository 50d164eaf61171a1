"""Changed files of weights through every tool and setting that takes one.

Right values, or a refusal in one sentence; nothing that a file carries is run.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from weight_doors import DOORS, Door, teachers_with_files, weights_of
from weight_mutations import PAYLOADS, REFUSED, RIGHT, UNSEEN, Mutation, mutations

from medic_mm.errors import UserError

MUTATIONS = mutations()
Outcome = Counter[str]


def test_all_teachers_that_read_files_are_in_the_list() -> None:
    assert teachers_with_files() <= set(DOORS)


@pytest.mark.parametrize('name', PAYLOADS)
def test_the_payloads_are_dangerous(tmp_path: Path, name: str) -> None:
    """Read as pickles are, each makes its file: so the other tests can fail."""
    sentinel = tmp_path / 'ran'
    torch.save({'a': PAYLOADS[name](sentinel)}, tmp_path / 'a.pth')
    sentinel.unlink(missing_ok=True)
    with contextlib.suppress(Exception):
        torch.load(tmp_path / 'a.pth', weights_only=False)
    assert sentinel.exists()


def try_file(
    label: str, mutation: Mutation, door: Door, seed: int, folder: Path
) -> str | None:
    """One file through one door; the outcome, after comparing it with the expected."""
    if mutation.needs_spare and not door.spare:
        return None
    rng = random.Random(f'{label} {seed}')
    folder.mkdir()
    path, sentinel = folder / 'weights.pth', folder / 'ran'
    weights = weights_of(door.layout)
    changed = mutation.write(path, dict(weights), rng, door.spare, sentinel)
    sentinel.unlink(missing_ok=True)  # some payloads run as they are made
    expected = mutation.reader if door.reads_only else mutation.expected
    try:
        found = door.run(path)
    except UserError as error:
        sentence = str(error)
        outcome = REFUSED
        assert '\n' not in sentence, sentence
        assert len(sentence) < 1200, sentence
        assert path.name in sentence, sentence
        assert expected in (REFUSED, UNSEEN), f'{label}: {sentence}'
    else:
        compared = set(weights) - {changed}
        wrong = [
            name
            for name in compared
            if name not in found or not equal(found[name], weights[name], mutation)
        ]
        outcome = 'wrong' if wrong else RIGHT
        assert expected in (RIGHT, UNSEEN), f'{label}: was not refused'
        assert expected == UNSEEN or not wrong, f'{label}: {wrong[:4]}'
    assert not sentinel.exists(), f'{label}: code ran'
    return outcome if expected != UNSEEN else f'{UNSEEN}: {outcome}'


def equal(found: torch.Tensor, weight: torch.Tensor, mutation: Mutation) -> bool:
    wanted = weight.half().float() if mutation.rounded else weight
    return bool(torch.equal(found.float(), wanted))


def run(chosen: list[tuple[str, int]], tmp_path: Path) -> dict[str, Outcome]:
    """Every chosen file through every door: outcomes by door."""
    outcomes: dict[str, Outcome] = {name: Counter() for name in DOORS}
    faults = []
    for number, (label, seed) in enumerate(chosen):
        for place, (name, door) in enumerate(DOORS.items()):
            folder = tmp_path / f'{number}_{place}'
            try:
                outcome = try_file(label, MUTATIONS[label], door, seed, folder)
            except Exception as error:
                kind = type(error).__name__
                outcome = 'FAULT'
                faults.append(f'{name}, seed {seed}, {label}: {kind}: {error}')
            if outcome is not None:
                outcomes[name][outcome] += 1
    assert not faults, '\n'.join(faults)
    return outcomes


def report(outcomes: dict[str, Outcome], files: int) -> str:
    lines = [f'{files} files through {len(DOORS)} doors']
    lines += [
        f'{name:16} ' + ', '.join(f'{k} {n}' for k, n in sorted(counts.items()))
        for name, counts in outcomes.items()
    ]
    return '\n'.join(lines)


@pytest.mark.filterwarnings('ignore')
def test_a_sample_of_changed_files(tmp_path: Path) -> None:
    """A seeded few of each kind; all of them carry the mark ``faults``."""
    rng = random.Random(0)
    kinds: dict[str, list[str]] = {}
    for label in MUTATIONS:
        kinds.setdefault(label.split()[0], []).append(label)
    chosen = [(rng.choice(labels), 0) for labels in kinds.values()]
    print(report(run(chosen, tmp_path), len(chosen)))


@pytest.mark.faults
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('seed', [0, 1])
def test_all_changed_files(tmp_path: Path, seed: int) -> None:
    chosen = [(label, seed) for label in MUTATIONS]
    print(report(run(chosen, tmp_path), len(chosen)))
