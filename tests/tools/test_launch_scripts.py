"""What the launch scripts hand on, with stubs in place of Python and srun."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

STUB = f"""#!/usr/bin/env bash
# answers `-c CODE` as Python would, notes a check, shows how others were called
if [ "$1" = -c ]; then exec '{sys.executable}' "$@"; fi
case " $* " in *' --check '*)
  printf 'checked=%s\\n' "$@"
  exit "${{STATUS:-0}}"
esac
echo "called=$0"
echo "threads=${{OMP_NUM_THREADS:-unset}}"
echo "path=${{PYTHONPATH:-unset}}"
printf 'argument=%s\\n' "$@"
"""
TORCHRUN = ['-m', 'torch.distributed.run']


def write_stub(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB)
    path.chmod(0o755)
    return path


class Called:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.errors = done.returncode, done.stderr
        pairs = [line.partition('=') for line in done.stdout.splitlines()]
        self.arguments = [value for key, _, value in pairs if key == 'argument']
        self.values = {key: value for key, _, value in pairs}

    def option(self, name: str) -> str:
        found = [a for a in self.arguments if a.startswith(f'--{name}=')]
        assert len(found) == 1, self.arguments
        return found[0].partition('=')[2]

    def after(self, word: str) -> list[str]:
        place = [a.endswith(word) for a in self.arguments].index(True)
        return self.arguments[place + 1 :]


@pytest.fixture
def clone(tmp_path: Path, root: Path) -> Path:
    """A clone at a path with a blank."""
    folder = tmp_path / 'a clone'
    shutil.copytree(root / 'tools', folder / 'tools')
    (folder / 'medic_mm').mkdir()
    return folder


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    write_stub(tmp_path / 'bin' / 'python')
    write_stub(tmp_path / 'bin' / 'srun')
    return tmp_path / 'bin'


def call(
    clone: Path, stubs: Path, script: str, *words: str, **variables: str
) -> Called:
    # an active environment keeps the repository's own out of the way
    environment = {'PATH': f'{stubs}:/usr/bin:/bin', 'VIRTUAL_ENV': 'x', **variables}
    return Called(
        subprocess.run(
            ['bash', str(clone / 'tools' / script), *words],
            env={key: value for key, value in environment.items() if value},
            capture_output=True,
            text=True,
        )
    )


def test_train_arguments_arrive_as_given(clone: Path, stubs: Path) -> None:
    words = ['--work-dir', 'my runs/a', '--cfg-options', 'a="[1, 2]"', 'b=*']
    done = call(clone, stubs, 'dist_train.sh', 'a config.py', '2', *words)
    assert done.status == 0, done.errors
    assert done.arguments[:2] == TORCHRUN
    assert done.option('nproc_per_node') == '2'
    assert done.option('nnodes') == '1'
    assert done.option('node_rank') == '0'
    assert done.option('master_addr') == '127.0.0.1'
    assert done.after('tools/train.py') == [
        'a config.py',
        '--launcher',
        'pytorch',
        *words,
    ]
    assert done.values['path'] == str(clone)


def test_test_arguments_arrive_as_given(clone: Path, stubs: Path) -> None:
    done = call(
        clone, stubs, 'dist_test.sh', 'c.py', 'a b.pth', '3', '--out', 'x y.pkl'
    )
    assert done.option('nproc_per_node') == '3'
    assert done.after('tools/test.py') == [
        'c.py',
        'a b.pth',
        '--launcher',
        'pytorch',
        '--out',
        'x y.pkl',
    ]


def test_several_machines(clone: Path, stubs: Path) -> None:
    variables = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    done = call(clone, stubs, 'dist_train.sh', 'c.py', '8', **variables)
    assert done.option('nnodes') == '2'
    assert done.option('node_rank') == '1'
    assert done.option('master_addr') == '10.0.0.1'
    # all machines have to know it
    assert done.option('master_port') == '29500'
    done = call(clone, stubs, 'dist_train.sh', 'c.py', '8', PORT='1234', **variables)
    assert done.option('master_port') == '1234'


def test_port_is_free_when_none_is_given(clone: Path, stubs: Path) -> None:
    port = int(call(clone, stubs, 'dist_train.sh', 'c.py', '1').option('master_port'))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', port))
    given = call(clone, stubs, 'dist_train.sh', 'c.py', '1', PORT='1234')
    assert given.option('master_port') == '1234'


@pytest.mark.parametrize(
    'processes, given, expected',
    [
        ('1', '', str(os.cpu_count())),
        ('100000', '', '1'),
        ('1', '7', '7'),
    ],
)
def test_threads(
    clone: Path, stubs: Path, processes: str, given: str, expected: str
) -> None:
    done = call(clone, stubs, 'dist_train.sh', 'c.py', processes, OMP_NUM_THREADS=given)
    assert done.values['threads'] == expected


def test_which_python(clone: Path, stubs: Path) -> None:
    own = write_stub(clone / '.venv' / 'bin' / 'python')
    other = write_stub(clone / 'other python')

    def used(**variables: str) -> str:
        done = call(clone, stubs, 'dist_train.sh', 'c.py', '1', **variables)
        assert ('No environment is active' in done.errors) == (
            done.values['called'] == str(own)
        )
        return done.values['called']

    assert used() == str(stubs / 'python')
    assert used(VIRTUAL_ENV='') == str(own)
    assert used(VIRTUAL_ENV='', CONDA_DEFAULT_ENV='base') == str(own)
    assert used(VIRTUAL_ENV='', CONDA_DEFAULT_ENV='mm') == str(stubs / 'python')
    assert used(PYTHON=str(other)) == str(other)
    assert used(MEDIC_MM_PYTHON=str(other)) == str(other)
    done = call(clone, stubs, 'dist_train.sh', 'c.py', '1', PYTHON='no-such-python')
    assert done.status == 2
    assert 'PYTHON=no-such-python is not a program' in done.errors


@pytest.mark.parametrize(
    'words, message',
    [
        (['dist_train.sh', 'c.py'], 'CONFIG GPUS'),
        (['dist_train.sh', 'c.py', '--resume'], "GPUS is a number of .* '--resume'"),
        (['dist_train.sh', 'c.py', '0'], "GPUS is a number of processes, not '0'"),
        (['dist_test.sh', 'c.py', '2'], 'CONFIG CHECKPOINT GPUS'),
        (['dist_test.sh', 'c.py', 'a.pth', 'b'], "GPUS is a number of .* 'b'"),
        (['slurm_train.sh', 'part', 'job', 'c.py'], 'PARTITION JOB CONFIG WORK_DIR'),
    ],
)
def test_wrong_calls(clone: Path, stubs: Path, words: list[str], message: str) -> None:
    done = call(clone, stubs, *words)
    assert done.status == 2
    assert done.arguments == []
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(done.errors)


def test_slurm(clone: Path, stubs: Path) -> None:
    done = call(
        clone,
        stubs,
        'slurm_train.sh',
        *('part', 'my job', 'c.py', 'my work', '--amp', '--cfg-options', 'a=b c'),
        GPUS='4',
        CPUS_PER_TASK='3',
        SRUN_ARGS='--qos=high --time=1:00',
    )
    assert done.values['called'] == str(stubs / 'srun')
    assert done.option('partition') == 'part'
    assert done.option('job-name') == 'my job'
    assert done.option('ntasks') == '4'
    # OpenMMLab's scripts ask for 8 on each machine whatever GPUS is
    assert done.option('ntasks-per-node') == '4'
    assert done.option('gres') == 'gpu:4'
    assert done.option('cpus-per-task') == '3'
    assert done.option('qos') == 'high'
    assert done.option('time') == '1:00'
    assert done.after('tools/train.py') == [
        *('c.py', '--work-dir', 'my work', '--launcher', 'slurm'),
        *('--amp', '--cfg-options', 'a=b c'),
    ]
    done = call(
        clone, stubs, 'slurm_train.sh', 'part', 'job', 'c.py', 'work', GPUS='16'
    )
    assert done.option('ntasks') == '16'
    assert done.option('ntasks-per-node') == '8'
    assert done.option('cpus-per-task') == '5'


def test_all_is_checked_once_before_the_start(clone: Path, stubs: Path) -> None:
    words = ['c.py', '4', '--amp', '--data-root', 'my data']
    done = call(clone, stubs, 'dist_train.sh', *words, NNODES='2')
    assert done.status == 0, done.errors
    checked = [x for x in done.errors.splitlines() if x.startswith('checked=')]
    assert checked[0].endswith('tools/train.py')
    assert checked[1:] == [
        f'checked={word}'
        for word in ('c.py', *words[2:], '--check', '--processes', '8')
    ]
    assert done.after('tools/train.py')[3:] == words[2:]


@pytest.mark.parametrize(
    'script, words',
    [
        ('dist_train.sh', ['c.py', '8']),
        ('slurm_train.sh', ['part', 'job', 'c.py', 'work']),
    ],
)
def test_nothing_starts_where_something_is_missing(
    clone: Path, stubs: Path, script: str, words: list[str]
) -> None:
    done = call(clone, stubs, script, *words, STATUS='1')
    assert done.status == 2
    assert done.arguments == []
    assert 'CHECK=0 or --no-check' in done.errors
    # as the message says
    for arguments, variables in ((['--no-check'], {}), ([], {'CHECK': '0'})):
        done = call(clone, stubs, script, *words, *arguments, STATUS='1', **variables)
        assert done.status == 0
        assert 'checked=' not in done.errors
        assert done.after('tools/train.py')
