"""Code that docs/extending.md shows, written into files and run as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# all commands in one process, which imports the libraries once
_RUNNER = """
import runpy, shlex, sys
for line in sys.stdin:
    sys.argv = shlex.split(line)
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise
"""


def write_files(heading: str, folder: Path) -> list[str]:
    """Write the Python files of a section of docs/extending.md; their names."""
    text = (ROOT / 'docs' / 'extending.md').read_text()
    section = text.split(f'## {heading}\n', 1)[1].split('\n## ', 1)[0]
    blocks = re.findall(r'`([\w.]+\.py)`:\n\n```python\n(.*?)```', section, re.DOTALL)
    for name, code in blocks:
        (folder / name).write_text(code.replace("'configs/", f"'{ROOT}/configs/"))
    return [name for name, _ in blocks]


def run(folder: Path, *commands: str) -> str:
    """Run tools of the repository one after the other in ``folder``; what they print.

    A command starts with the tool's path, such as ``tools/train.py``.
    """
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, '-c', _RUNNER],
        input='\n'.join(f'{ROOT}/{command}' for command in commands),
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr
