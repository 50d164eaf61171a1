"""Code that docs/extending.md shows, written into files and run as a user does."""

from __future__ import annotations

import json
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


#: Two epochs of five steps with a random teacher, and k-NN after them.
SHORT = """
train_cfg = dict(max_epochs=2)
train_dataloader.update(batch_size=20, num_workers=0, persistent_workers=False)
train_dataloader['dataset'] = dict(
    train_dataloader.get('dataset', {}), length=100
)
default_hooks = dict(logger=dict(interval=1))
model['target_generator'] = dict(weights=None, random_weights=True)
_knn = dict(batch_size=50, num_workers=0)
_images = dict(
    type='medic_mm.EmbeddedShapes', length=100, pipeline=[dict(type='PackInputs')]
)
custom_hooks = [
    dict(
        type='medic_mm.KNNHook',
        interval=2,
        k=(20,),
        train_dataloader=dict(**_knn, dataset=dict(_images, split='train')),
        test_dataloader=dict(**_knn, dataset=dict(_images, split='val')),
    ),
]
"""


def shorten(config: Path) -> None:
    """Let a config of the quickstart train for seconds."""
    text = config.read_text()
    for name in ('model', 'train_dataloader'):
        if f'\n{name} = ' not in text:
            text += f'{name} = dict()\n'
    config.write_text(text + SHORT)


def steps_of(work_dir: Path) -> list[dict]:
    """Rows of the log of a run."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


def component(heading: str, name: str, folder: Path) -> type:
    """A class of a section, not registered: other tests go through the registries."""
    module, _ = write_files(heading, folder)
    code = re.sub(r'@\w+\.register_module\(\)\n', '', (folder / module).read_text())
    found: dict = {}
    exec(code, found)
    return found[name]
