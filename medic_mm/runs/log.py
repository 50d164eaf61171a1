"""What the log files of a run say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_LINE = re.compile(
    r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - \S+ - '
    r'(DEBUG|INFO|WARNING|ERROR|CRITICAL) - '
)
_TIME = '%Y/%m/%d %H:%M:%S'
_EPOCH = re.compile(r'Epoch\(train\)\s+\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]')
_ITERATION = re.compile(r'Iter\(train\)\s+\[\s*(\d+)/(\d+)\]')
_SAVED = re.compile(r'Saving checkpoint at (\d+) (epochs|iterations)')
_RESUMED = re.compile(r'resumed epoch: (\d+), iter: (\d+)')
_LEFT = re.compile(r'\beta: ((?:\d+ days?, )?[\d:]+)')
_SETTING = re.compile(r'^ {4}([A-Za-z][^:]*): (.*)$')
#: Long, and of use to those who build PyTorch.
_NOT_SHOWN = ('PyTorch compiling details',)


@dataclass(frozen=True)
class Entry:
    """One message of the log: its time, level and text."""

    time: datetime
    level: str
    text: str


@dataclass
class Log:
    """One log file: one start of the tool.

    Attributes:
        path: The file.
        entries: Its messages.
        environment: What mmengine found out about the system, in its order.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first to the last line."""
        if not self.entries:
            return 0.0
        return (self.entries[-1].time - self.entries[0].time).total_seconds()

    @property
    def resumed_at(self) -> tuple[int, int] | None:
        """Epochs and iterations that were done when this start resumed, if it did."""
        found = [_RESUMED.search(entry.text) for entry in self.entries]
        numbers = [(int(x[1]), int(x[2])) for x in found if x]
        return numbers[-1] if numbers else None

    @property
    def time_left(self) -> str | None:
        """The last estimate of the log, such as ``'0:01:38'``."""
        found = [_LEFT.findall(entry.text) for entry in self.entries]
        named = [times[-1] for times in found if times]
        return named[-1] if named else None

    def saved(self, unit: str) -> int:
        """Number of ``'epochs'`` or ``'iterations'`` at the last checkpoint written."""
        found = [_SAVED.search(entry.text) for entry in self.entries]
        return max((int(x[1]) for x in found if x and x[2] == unit), default=0)

    def epochs(self) -> int:
        """Whole epochs that the lines of training show."""
        done = 0
        for entry in self.entries:
            for epoch, step, steps in _EPOCH.findall(entry.text):
                done = max(done, int(epoch) - (step != steps))
        return done

    def iterations(self) -> int:
        """Iterations that the lines of training show, in a run that counts these."""
        return max(
            (int(x) for e in self.entries for x, _ in _ITERATION.findall(e.text)),
            default=0,
        )


def read_log(path: Path) -> Log:
    """Read a log file, if any; lines that are not messages belong to the one before."""
    log = Log(path)
    if not path.is_file():
        return log
    text: list[str] = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        found = _LINE.match(line)
        if found:
            _finish(log, text)
            time = datetime.strptime(found[1], _TIME)
            log.entries.append(Entry(time, found[2], ''))
            text = [line[found.end() :]]
        else:
            text.append(line)
    _finish(log, text)
    return log


def _finish(log: Log, text: list[str]) -> None:
    """Give the last entry its text."""
    if not log.entries:
        return
    last = log.entries[-1]
    log.entries[-1] = Entry(last.time, last.level, '\n'.join(text))
    if not log.environment and any('System environment:' in line for line in text):
        log.environment = _read_environment(text)


def _read_environment(lines: list[str]) -> dict[str, str]:
    found = [_SETTING.match(line) for line in lines]
    pairs = {x[1].strip(): x[2].strip() for x in found if x}
    return {key: value for key, value in pairs.items() if key not in _NOT_SHOWN}
