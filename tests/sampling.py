"""A seeded sample of the tests: as many as fit into a given time.

``--sample-seconds 480`` shuffles the tests that were selected and starts only those
that can end in time; the rest is skipped and counted. Time runs from the start of the
process, and under xdist each worker has its own, over the same order.
"""

from __future__ import annotations

import random
import time
from datetime import date

import pytest

#: Seconds that a test may take; one that takes longer says so by its own timeout.
CLAIM = 60.0


class Sample:
    """Shuffles the tests and skips what does not fit.

    Args:
        seconds: The time for all.
        seed: Of the order.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds, self.seed = seconds, seed
        self.end = time.monotonic() + seconds

    def __str__(self) -> str:
        return f'sample: --sample-seconds {self.seconds:g} --sample-seed {self.seed}'

    def pytest_report_header(self) -> str:
        return str(self)

    # after the choice by markers, so that one test more elsewhere changes nothing
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.nodeid)
        random.Random(self.seed).shuffle(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() + claim(item) > self.end:
            pytest.skip('not in the sample: its time is used up')

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        reports = terminalreporter.stats
        left_out = sum(
            'not in the sample' in str(report.longrepr)
            for report in reports.get('skipped', [])
        )
        run = sum(
            len(reports.get(outcome, [])) for outcome in ('passed', 'failed', 'error')
        )
        terminalreporter.write_line(f'{self}: {run} run, {left_out} left out')


def claim(item: pytest.Item) -> float:
    """Seconds that a test may take: those of its marker ``timeout``, else 60."""
    marker = item.get_closest_marker('timeout')
    if marker is None:
        return CLAIM
    return float(marker.args[0] if marker.args else marker.kwargs['timeout'])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--sample-seconds`` and ``--sample-seed``."""
    group = parser.getgroup('sample', 'a seeded sample of the tests')
    group.addoption(
        '--sample-seconds',
        type=float,
        metavar='S',
        help='run as many of the selected tests, shuffled, as fit into S seconds',
    )
    group.addoption(
        '--sample-seed',
        type=int,
        metavar='N',
        help='of their order (default: the date)',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Sample if it is asked for."""
    if config.option.sample_seconds is None:
        return
    if config.option.sample_seed is None:
        # kept, so that all workers of xdist have the same
        config.option.sample_seed = int(date.today().strftime('%Y%m%d'))
    options = config.option
    config.pluginmanager.register(
        Sample(options.sample_seconds, options.sample_seed), 'medic_mm_sample'
    )
