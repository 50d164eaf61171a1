"""The set-up scripts, what the wheel packs, and the check of a report in ``.ci``."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [*sorted((ROOT / 'tools').glob('*.sh')), ROOT / '.ci' / 'run']

# an interpreter that writes down its calls, makes toy environments of itself, and
# installs nothing
STUB = """#!/usr/bin/env bash
echo "$*" >>'{log}'
case "$1 $2 $3" in
  '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  '-m pip install') exit {pip_status} ;;
  '-m '* | '-c import medic_mm'*) ;;
  *) exec '{python}' "$@" ;;
esac
"""
NAMES = ('python3', 'python3.12', 'python3.11', 'python3.10', 'python')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    subprocess.run(['bash', '-n', script], check=True)
    # what is sourced only is not to be called
    assert os.access(script, os.X_OK) is not script.name.startswith('_')


class Clone:
    """A toy clone whose ``tools/_env.sh`` finds only stubs of Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / 'clone'
        self.binaries = folder / 'bin'
        self.log = folder / 'calls.txt'
        self.binaries.mkdir()
        shutil.copytree(ROOT / 'requirements', self.folder / 'requirements')
        shutil.copytree(ROOT / 'tools', self.folder / 'tools')
        shutil.copy(ROOT / 'setup.py', self.folder)

    def write_python(self, text: str) -> None:
        for name in NAMES:
            (self.binaries / name).write_text(text)
            (self.binaries / name).chmod(0o755)

    def write_stub(self, pip_status: int = 0) -> None:
        stub = STUB.format(log=self.log, python=sys.executable, pip_status=pip_status)
        self.write_python(stub)

    def call(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Prepare an interpreter; prints which, and what ``python`` is then."""
        self.log.write_text('')
        environment = {'PATH': f'{self.binaries}:/usr/bin:/bin', **variables}
        command = (
            f'set -euo pipefail; source "{self.folder}/tools/_env.sh"; prepare_python'
        )
        return subprocess.run(
            ['bash', '-c', f'{command}; echo "$PYTHON"; command -v python'],
            env=environment,
            capture_output=True,
            text=True,
        )

    def installs(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [line for line in lines if line.startswith('-m pip install')]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    clone = Clone(tmp_path)
    clone.write_stub()
    return clone


def test_second_call_installs_nothing(clone: Clone) -> None:
    first = clone.call()
    assert first.returncode == 0, first.stderr
    (install,) = clone.installs()
    assert install.endswith(f'--editable {clone.folder}[onedl,seg,tests]')
    assert 'GB are downloaded' in first.stdout
    python = str(clone.folder / '.venv' / 'bin' / 'python')

    second = clone.call()
    assert second.stdout.splitlines() == [python, python]
    assert clone.installs() == []


def test_changed_requirements_are_installed(clone: Clone) -> None:
    clone.call()
    with (clone.folder / 'requirements' / 'runtime.txt').open('a') as file:
        file.write('einops\n')
    changed = clone.call()
    assert len(clone.installs()) == 1
    assert 'A requirement changed' in changed.stdout
    assert 'GB' not in changed.stdout
    clone.call()
    assert clone.installs() == []


def test_copied_clone_is_installed_anew(clone: Clone) -> None:
    # its environment would run the code of the folder that it was copied from
    clone.call()
    clone.folder = clone.folder.rename(clone.folder.with_name('elsewhere'))
    clone.call()
    assert clone.installs()[0].endswith(f'{clone.folder}[onedl,seg,tests]')


def test_failed_install_is_tried_again(clone: Clone) -> None:
    clone.write_stub(pip_status=1)
    failed = clone.call()
    assert failed.returncode == 2
    assert 'pip could not install' in failed.stderr
    shutil.rmtree(clone.folder / '.venv')
    clone.write_stub()
    assert clone.call().returncode == 0
    assert len(clone.installs()) == 1


def test_unsuitable_python_is_refused(clone: Clone) -> None:
    clone.write_python('#!/bin/sh\nexit 1\n')
    done = clone.call()
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert 'no Python 3.10, 3.11 or 3.12' in done.stderr
    assert not (clone.folder / '.venv').exists()


def test_unsuitable_environment_is_refused(clone: Clone) -> None:
    clone.call()
    python = clone.folder / '.venv' / 'bin' / 'python'
    python.write_text('#!/bin/sh\nexit 1\n')
    done = clone.call()
    assert done.returncode == 2
    assert f'remove {clone.folder}/.venv' in done.stderr


def test_given_python_is_used_as_it_is(clone: Clone) -> None:
    done = clone.call(MEDIC_MM_PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == sys.executable
    assert not clone.installs()
    assert not (clone.folder / '.venv').exists()


def test_given_python_must_be_there(clone: Clone) -> None:
    done = clone.call(MEDIC_MM_PYTHON='/nowhere/python')
    assert done.returncode == 2
    assert done.stderr.startswith(
        'error: MEDIC_MM_PYTHON=/nowhere/python is not a program'
    )


LACKING = '#!/bin/sh\nexit 1\n'


def test_active_environment_is_used_as_it_is(clone: Clone) -> None:
    done = clone.call(VIRTUAL_ENV='x')
    assert done.stdout.splitlines()[-2:] == [str(clone.binaries / 'python')] * 2
    assert not clone.installs()
    assert not (clone.folder / '.venv').exists()


def test_active_environment_without_the_packages_is_left_alone(clone: Clone) -> None:
    (clone.binaries / 'python').write_text(LACKING)
    done = clone.call(VIRTUAL_ENV='x')
    assert 'The active environment lacks one of the modules torch' in done.stdout
    assert done.stdout.splitlines()[-1] == f'{clone.folder}/.venv/bin/python'
    assert len(clone.installs()) == 1


def test_given_python_needs_the_packages(clone: Clone) -> None:
    given = clone.binaries / 'given'
    given.write_text(LACKING)
    given.chmod(0o755)
    done = clone.call(MEDIC_MM_PYTHON=str(given))
    assert done.returncode == 2
    assert f'run {given} -m pip install -e' in done.stderr
    assert not clone.installs()


# what the wheel packs

CALLED = {
    'dist_test.sh': ['a.py', 'a.pth', '2'],
    'dist_train.sh': ['a.py', '2', '--no-check'],
    'evaluate.sh': ['a.pth'],
    'slurm_train.sh': ['part', 'job', 'a.py', 'work', '--no-check'],
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """``tools`` as the wheel packs it, next to no package and no set-up scripts."""
    listed = re.search(r'CLONE_ONLY = \((.*)\)', (ROOT / 'setup.py').read_text())
    ignored = shutil.ignore_patterns('__pycache__', *re.findall(r"'(.+?)'", listed[1]))
    return shutil.copytree(ROOT / 'tools', tmp_path / '.mim' / 'tools', ignore=ignored)


def test_packed_scripts_are_self_contained(packed: Path, tmp_path: Path) -> None:
    """Each ends in a call of its tool by the active environment's Python."""
    program = tmp_path / 'bin' / 'python'
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho $*'
    )
    program.chmod(0o755)
    (program.parent / 'srun').symlink_to(program)
    scripts = {path.name for path in packed.glob('*.sh')} - {'_env.sh'}
    assert scripts == set(CALLED)
    for name, words in CALLED.items():
        done = subprocess.run(
            ['bash', packed / name, *words],
            env={'PATH': f'{program.parent}:/usr/bin:/bin', 'VIRTUAL_ENV': 'x'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        tool = name.replace('.sh', '.py').split('_')[-1]
        assert f'{packed / tool} ' in done.stdout, done.stdout


@pytest.mark.parametrize('name', sorted(path.name for path in ROOT.glob('tools/*.py')))
def test_packed_tools_show_their_help(
    packed: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sys, 'argv', [name, '--help'])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(packed / name), run_name='__main__')
    assert caught.value.code == 0
    assert f'usage: {name} ' in capsys.readouterr().out


# the check of the shared data

TOY_TESTS = """
import pytest

@pytest.mark.shared_data
class TestMarked:
    @pytest.mark.parametrize('name', ['a.b', 'c::d[0]'])
    def test_runs(self, name):
        pass

@pytest.mark.shared_data
def test_fails():
    assert False

def test_skips_for_another_reason():
    pytest.skip('no accelerator')
"""
TOY_SKIPS = """
import pytest

@pytest.mark.shared_data
def test_marked():
    pytest.skip('needs the shared data folder')

def test_unmarked():
    pytest.skip('needs the shared data folder')
"""


@pytest.fixture(scope='module')
def summary() -> ModuleType:
    path = ROOT / '.ci' / 'summary.py'
    spec = importlib.util.spec_from_file_location('ci_summary', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def complaints(summary: ModuleType, folder: Path, text: str) -> list[str]:
    """Run toy tests by pytest and let the check judge the report."""
    (folder / 'tests').mkdir()
    (folder / 'tests' / 'test_toy.py').write_text(text)
    markers = '[pytest]\nmarkers = shared_data\ntestpaths = tests\n'
    (folder / 'pytest.ini').write_text(markers)
    pytest_ = [sys.executable, '-m', 'pytest', '-q', '--junitxml=junit.xml']
    environment = {**os.environ, 'PYTEST_ADDOPTS': ''}
    subprocess.run(pytest_, cwd=folder, env=environment, capture_output=True)
    tests = summary.read_report(folder / 'junit.xml')
    return summary.find_complaints(tests, summary.collect_marked(folder))


def test_summary_accepts_a_report_with_all_data_tests(
    summary: ModuleType, tmp_path: Path
) -> None:
    assert complaints(summary, tmp_path, TOY_TESTS) == []


def test_summary_names_data_tests_that_were_skipped(
    summary: ModuleType, tmp_path: Path
) -> None:
    first, second = complaints(summary, tmp_path, TOY_SKIPS)
    assert first.startswith('tests/test_toy.py::test_marked was skipped')
    assert second == (
        'tests.test_toy.test_unmarked was skipped and lacks the marker shared_data'
    )


def test_summary_wants_one_data_test(summary: ModuleType, tmp_path: Path) -> None:
    text = 'def test_nothing():\n    pass\n'
    assert complaints(summary, tmp_path, text) == [
        'no test carries the marker shared_data'
    ]
    assert summary.find_complaints({}, ['tests/test_a.py::test_b']) == [
        'tests/test_a.py::test_b was not run'
    ]


def test_summary_knows_the_default_tests(summary: ModuleType) -> None:
    options = (ROOT / 'pyproject.toml').read_text()
    assert f"-m '{summary.DEFAULT}'" in options


def test_summary_names_samples_that_lack_the_data(
    summary: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = '<testcase classname="tests.test_a" name="test_b">{}</testcase>'
    lacking = '<skipped message="needs the shared data folder; x has none"/>'
    reports = [tmp_path / 'default.xml', tmp_path / 'sample.xml']
    reports[0].write_text(f'<testsuite>{case.format("")}</testsuite>')
    reports[1].write_text(f'<testsuite>{case.format("")}</testsuite>')
    monkeypatch.setattr(summary, 'is_data_expected', lambda: True)
    monkeypatch.setattr(
        summary, 'collect_marked', lambda _: ['tests/test_a.py::test_b']
    )
    assert summary.main(*reports) == 0
    reports[1].write_text(f'<testsuite>{case.format(lacking)}</testsuite>')
    assert summary.main(*reports) == 1
    assert 'tests.test_a.test_b of the sample was skipped' in capsys.readouterr().err


# the long parts, and the sample of them

TOY_LONG = """
import time
import pytest

@pytest.mark.parametrize('number', range(12))
def test_of_a_third_of_a_second(number):
    time.sleep(1 / 3)

@pytest.mark.timeout(500)
def test_longer_than_the_sample():
    raise AssertionError('started')
"""


@pytest.mark.parametrize(
    ('given', 'called'),
    [
        (['--faults'], '-m pytest -m faults --numprocesses=auto'),
        (
            ['--newcomers', '--docs', '-x'],
            '-m pytest -m newcomers or docs --numprocesses=auto',
        ),
        (['tests/masking', '-x'], '-m pytest tests/masking -x'),
    ],
)
def test_long_parts_are_named(clone: Clone, given: list[str], called: str) -> None:
    program = clone.binaries / 'python'
    subprocess.run(
        ['bash', clone.folder / 'tools' / 'run_tests.sh', *given],
        env={'PATH': '/usr/bin:/bin', 'MEDIC_MM_PYTHON': str(program)},
        check=True,
    )
    last = clone.log.read_text().splitlines()[-1]
    assert last.startswith(called)
    assert last.endswith(' -x') is ('-x' in given)


def sample(folder: Path, seconds: int, seed: int, *options: str) -> str:
    """What pytest prints of a sample of the toy tests."""
    folder.mkdir(exist_ok=True)
    (folder / 'test_toy.py').write_text(TOY_LONG)
    (folder / 'conftest.py').write_text(
        'import sampling\n'
        'from sampling import pytest_addoption, pytest_configure\n'
        'sampling.CLAIM = 0.0\n'
    )
    (folder / 'pytest.ini').write_text('[pytest]\n')
    command = [sys.executable, '-m', 'pytest', '-ra', *options]
    command += ['--sample-seconds', str(seconds), '--sample-seed', str(seed)]
    environment = {
        **os.environ,
        'PYTEST_ADDOPTS': '',
        'PYTHONPATH': str(ROOT / 'tests'),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sample_ends_in_time_and_counts(tmp_path: Path) -> None:
    text = sample(tmp_path, 3, 7, '-v')
    run = text.count('PASSED')
    # three seconds have room for nine, less what the start takes
    assert 1 <= run <= 9
    ending = (
        f'sample: --sample-seconds 3 --sample-seed 7: {run} run, {13 - run} left out'
    )
    assert ending in text
    assert text.count('not in the sample: its time is used up') == 1


def test_sample_follows_its_seed(tmp_path: Path) -> None:
    first, again, other = (
        re.findall(
            r'second\[(\d+)\]', sample(tmp_path, 3, seed, '--collect-only', '-q')
        )
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first) == sorted(other)


def test_sample_by_several_processes(tmp_path: Path) -> None:
    assert '12 run, 1 left out' in sample(tmp_path, 100, 1, '--numprocesses=2')
