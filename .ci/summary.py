"""Sum up test reports; fail where tests of the shared data were not run.

Usage: ``python .ci/summary.py JUNIT_XML [SAMPLE_XML]``

The shared data folder is the one that the environment variable ``MEDIC_MM_SHARED``
names, else ``shared`` beside the repository. Where it is there, every default test with
the marker ``shared_data`` must have run, and there must be one at least. Without this a
broken path would turn all of them into skips, and nobody would notice. Of a sample of
the long tests, none may have been skipped for want of the data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# how the fixture `shared` begins its reason for skipping
NO_DATA = 'needs the shared data folder'
# the default tests, as pyproject.toml chooses them
DEFAULT = 'not faults and not docs and not newcomers'


def read_report(path: Path) -> dict[str, tuple[str, str]]:
    """Read pytest's JUnit file: test to (outcome, reason).

    Outcomes are ``'passed'``, ``'failed'``, ``'error'`` and ``'skipped'`` (expected
    failures too). A test is named as :func:`report_name` names it.
    """
    tests = {}
    for case in ElementTree.parse(path).iter('testcase'):
        outcome, reason = 'passed', ''
        for child in case:
            if child.tag in ('failure', 'error', 'skipped'):
                outcome = 'failed' if child.tag == 'failure' else child.tag
                reason = child.get('message', '')
        tests[f'{case.get("classname")}.{case.get("name")}'] = (outcome, reason)
    return tests


def report_name(node_id: str) -> str:
    """The name that pytest's JUnit file gives to a test's node id."""
    path, bracket, parameters = node_id.partition('[')
    file, *names = path.split('::')
    module = file.removesuffix('.py').replace('/', '.')
    return '.'.join([module, *names]) + bracket + parameters


def collect_marked(root: Path) -> list[str]:
    """Node ids of the default tests that carry the marker ``shared_data``."""
    environment = {**os.environ, 'PYTEST_ADDOPTS': ''}
    marked = f'shared_data and {DEFAULT}'
    command = ['pytest', '--collect-only', '-q', '-m', marked]
    # the project's own options, less its summary of skips
    command += ['-o', 'addopts=--import-mode=importlib']
    run = subprocess.run(
        [sys.executable, '-m', *command],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    # 5: pytest's status for "no tests collected"
    if run.returncode not in (0, 5):
        sys.exit(f'error: pytest could not collect the tests:\n{run.stdout}')
    return [line for line in run.stdout.splitlines() if '::' in line]


def is_data_expected() -> bool:
    """Whether the shared data folder is there, or named in the environment.

    A named folder is expected even if it is missing; an empty name means none.
    """
    named = os.environ.get('MEDIC_MM_SHARED')
    return bool(named) if named is not None else (ROOT.parent / 'shared').is_dir()


def find_complaints(tests: dict[str, tuple[str, str]], marked: list[str]) -> list[str]:
    """What is wrong with a report of a machine that has the shared data.

    Args:
        tests: The report, as from :func:`read_report`.
        marked: Node ids of the tests with the marker ``shared_data``.

    Returns:
        One sentence for each complaint; none where all is well.
    """
    complaints = []
    if not marked:
        complaints.append('no test carries the marker shared_data')
    for node_id in marked:
        outcome, reason = tests.get(report_name(node_id), ('not run', ''))
        if outcome in ('skipped', 'not run'):
            complaints.append(f'{node_id} was {outcome}: {reason}'.rstrip(': '))
    names = {report_name(node_id) for node_id in marked}
    for name, (outcome, reason) in tests.items():
        if outcome == 'skipped' and NO_DATA in reason and name not in names:
            complaints.append(f'{name} was skipped and lacks the marker shared_data')
    return complaints


def main(report: str, sample: str | None = None) -> int:
    found = []
    for path in map(Path, filter(None, (report, sample))):
        if not path.is_file():
            print(
                f'error: pytest wrote no report {path}: did it start?', file=sys.stderr
            )
            return 1
        tests = read_report(path)
        outcomes = [outcome for outcome, _ in tests.values()]
        parts = [
            f'{outcomes.count(name)} {name}'
            for name in ('passed', 'failed', 'error', 'skipped')
        ]
        print(f'{path.stem}: {len(tests)} tests: {", ".join(parts)}')
        found.append(tests)
    if not is_data_expected():
        print('shared data: not on this machine, tests that need it were skipped')
        return 0
    marked = collect_marked(ROOT)
    complaints = find_complaints(found[0], marked)
    for tests in found[1:]:
        complaints += [
            f'{name} of the sample was skipped: {reason}'
            for name, (outcome, reason) in tests.items()
            if outcome == 'skipped' and NO_DATA in reason
        ]
    for complaint in complaints:
        print(f'error: shared data: {complaint}', file=sys.stderr)
    if not complaints:
        print(f'shared data: all {len(marked)} tests that need it were run')
    return bool(complaints)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
