"""What a run's files tell that its reader should know, and what it means."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from medic_mm.runs.log import Log
from medic_mm.runs.run import Run

#: Below so many teacher heads in use a student learns from one alone.
FEW_HEADS = 1.5
#: Above this mean cosine the heads of a student are alike.
ALIKE = 0.99
#: Below this spread (1 is isotropic) class tokens are alike.
NO_SPREAD = 0.02
#: So many times the usual distance between log lines is a gap.
_GAP = 3
_PAUSE = 10
_LEAST_PAUSE_SECONDS = 1800

_SKIPPED = re.compile(r'(\d+) of (\d+) training images were unreadable and skipped')
_NO_TARGET = re.compile(r'(\d+) images could not be read and have no teacher output')
_DIVERGED = 'training diverged'
_BAD_FEATURES = 'features have NaN or infinite values'
_OWN = (_SKIPPED.pattern, _NO_TARGET.pattern, _DIVERGED, _BAD_FEATURES)


@dataclass(frozen=True)
class Finding:
    """One warning, or one note.

    Attributes:
        kind: A fixed name, such as ``'nan'``.
        serious: Whether results may be spoiled; a note otherwise.
        what: What was found, in one sentence.
        meaning: What that means, in one sentence.
    """

    kind: str
    serious: bool
    what: str
    meaning: str


def find_warnings(run: Run) -> list[Finding]:
    """All that was found, serious ones first."""
    found = [
        *_not_finite(run),
        *_collapsed(run),
        *_skipped(run),
        *_checkpoints(run),
        *_gaps(run),
        *_unread(run),
        *_parts(run),
    ]
    return sorted(found, key=lambda finding: not finding.serious)


def other_warnings(run: Run) -> list[tuple[str, int]]:
    """Messages of level WARNING and above that no finding is made of, and how often."""
    counts = Counter(
        entry.text.strip()
        for log in run.logs
        for entry in log.entries
        if entry.level not in ('DEBUG', 'INFO')
        and not any(re.search(pattern, entry.text) for pattern in _OWN)
    )
    return list(counts.items())


def _messages(run: Run) -> Iterator[str]:
    return (entry.text for log in run.logs for entry in log.entries)


def _not_finite(run: Run) -> Iterator[Finding]:
    stops = [text for text in _messages(run) if _DIVERGED in text]
    if stops:
        yield Finding(
            'nan',
            True,
            f'Training stopped because it diverged: {stops[-1].strip()}.',
            'Weights or losses became NaN or infinite; checkpoints from before are '
            'good, and a lower learning rate or gradient clipping helps.',
        )
    if run.not_finite:
        names = ', '.join(f'{n} (first at step {s[0]:g})' for n, s in _first(run))
        yield Finding(
            'not-finite',
            True,
            f'The log has values that are NaN or infinite: {names}.',
            'Curves leave these points out; what was trained after them is worthless '
            'unless they were single steps of mixed precision.',
        )
    if any(_BAD_FEATURES in text for text in _messages(run)):
        yield Finding(
            'bad-features',
            True,
            'A k-NN evaluation met features that are NaN or infinite.',
            'The network had diverged by then, so that point has no accuracy.',
        )


def _first(run: Run) -> list[tuple[str, list[float]]]:
    return sorted(run.not_finite.items(), key=lambda item: item[1][0])[:4]


def _collapsed(run: Run) -> Iterator[Finding]:
    for name, points in run.curves.items():
        value = points[-1][1]
        if name.startswith('used_heads_') and value < FEW_HEADS:
            yield Finding(
                'used-heads',
                True,
                f'{name} ended at {value:.2f} (below {FEW_HEADS}).',
                'Nearly all weight went to one teacher head: the matching collapsed, '
                'however low the loss is.',
            )
        if name.startswith('cos_student_') and value > ALIKE:
            yield Finding(
                'alike-heads',
                True,
                f'{name} ended at {value:.4f} (above {ALIKE}).',
                "The student's heads became alike, so that several do the work of one.",
            )
        if name == 'std_cls' and value < NO_SPREAD and run.done:
            yield Finding(
                'no-spread',
                True,
                f'{name} ended at {value:.4f} (below {NO_SPREAD}).',
                'Class tokens of all images are nearly the same: the representation '
                'collapsed.',
            )


def _skipped(run: Run) -> Iterator[Finding]:
    matches = [m for text in _messages(run) if (m := _SKIPPED.search(text))]
    if matches:
        count, total = (int(number) for number in matches[-1].groups())
        text = matches[-1].string.partition(': ')[2].strip()
        yield Finding(
            'skipped',
            True,
            f'{count:,} of {total:,} training images could not be read'
            f'{f": {text}" if text else ""}.',
            'Others took their place in the batches; repair or remove the files.',
        )
    matches = [m for text in _messages(run) if (m := _NO_TARGET.search(text))]
    if matches:
        yield Finding(
            'no-target',
            True,
            f'{int(matches[-1][1]):,} images have no output in the teacher cache.',
            'They could not be read when the cache was filled, and are never trained '
            'on.',
        )


def _checkpoints(run: Run) -> Iterator[Finding]:
    pointer = run.folder / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    saved = max(max(x.saved('epochs'), x.saved('iterations')) for x in run.logs)
    names = {path.name for path in run.checkpoints}
    if named and Path(named).name not in names and not Path(named).is_file():
        yield Finding(
            'checkpoint',
            True,
            f'last_checkpoint names {Path(named).name}, which is not there.',
            'It was removed or moved: the run cannot be resumed or evaluated from it.',
        )
    elif saved and not names and not Path(named or '-').is_file():
        yield Finding(
            'checkpoint',
            True,
            'The log names checkpoints, but the folder has none.',
            'They were removed or moved: the run cannot be resumed or evaluated.',
        )


def _gaps(run: Run) -> Iterator[Finding]:
    for number in range(len(run.logs)):
        steps = sorted({r['iter'] for r in run.records if _counts(r, number)})
        jumps = [b - a for a, b in pairwise(steps)]
        usual = statistics.median(jumps) if jumps else 0
        for before, jump in zip(steps, jumps, strict=False):
            if jump > _GAP * usual:
                yield Finding(
                    'gap',
                    True,
                    f'No scalars from iteration {before:,} to {before + jump:,}, where '
                    f'there is a line every {usual:g}.',
                    'Lines were lost, so curves are drawn straight across.',
                )
    for log in run.logs:
        yield from _pauses(log)
    if run.torn:
        yield Finding(
            'torn',
            False,
            f'{run.torn} line(s) of the scalars cannot be read.',
            'The process ended, or is, in the middle of a line; the rest is shown.',
        )


def _unread(run: Run) -> Iterator[Finding]:
    if run.config_problem:
        yield Finding(
            'config',
            False,
            f'The config of the run cannot be read, and was not run: '
            f'{run.config_problem}.',
            'Facts that are taken from it are left out.',
        )
    if not run.environment:
        yield Finding(
            'environment',
            False,
            'The log has no description of the system.',
            'The run ended, or its log was lost, before MMEngine wrote it; seed and '
            'versions are not known.',
        )


def _counts(record: dict, start: int) -> bool:
    return record['start'] == start and isinstance(record.get('iter'), (int, float))


def _pauses(log: Log) -> Iterator[Finding]:
    times = [entry.time for entry in log.entries]
    waits = [(b - a).total_seconds() for a, b in pairwise(times)]
    usual = statistics.median(waits) if waits else 0.0
    for begin, seconds in zip(times, waits, strict=False):
        if seconds > max(_PAUSE * usual, _LEAST_PAUSE_SECONDS):
            yield Finding(
                'pause',
                False,
                f'The log is silent for {seconds / 60:.0f} minutes from '
                f'{_clock(begin)}.',
                'The process stood still or waited there, or lines of the log were '
                'lost; the time of the run includes it.',
            )


def _parts(run: Run) -> Iterator[Finding]:
    for log in run.logs:
        if log.resumed_at is None:
            continue
        epochs, iterations = log.resumed_at
        yield Finding(
            'resumed',
            False,
            f'The run was resumed on {_clock(log.entries[0].time)}, after {epochs} '
            f'epochs and {iterations:,} iterations.',
            'Curves join the parts; of steps that were done twice they show the later '
            'values.',
        )
    trained = sorted({r['start'] for r in run.records if 'iter' in r})
    anew = [n for n in trained[1:] if run.logs[n].resumed_at is None]
    if anew:
        yield Finding(
            'restarted',
            True,
            f'{len(anew)} start(s) in this folder began anew and resumed nothing.',
            'Curves of separate runs are mixed here: give each its own work folder.',
        )
    if not run.finished:
        last = run.logs[-1].entries
        when = f', whose last line is of {_clock(last[-1].time)}' if last else ''
        planned = f' of {run.planned:,}' if run.planned is not None else ''
        yield Finding(
            'unfinished',
            False,
            f'The log ends after {run.done:,}{planned} {run.unit}{when}.',
            'The run goes on still, or was stopped; --resume auto goes on from its '
            'newest checkpoint.',
        )


def _clock(time: datetime) -> str:
    return time.strftime('%Y-%m-%d at %H:%M')
