"""A room of the package imports only rooms that stand before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'medic_mm'
#: In their order; what is in no folder comes first.
ROOMS = (
    *('', 'checkpoints', 'masking', 'datasets', 'evaluation', 'models/losses'),
    *('models/vit', 'models/teachers', 'models/fit', 'models/medic'),
    *('models/mimhd', 'models'),
    *('settings', 'runs', 'export', 'pictures', 'engine', 'cli', 'quickstart'),
)


def room_of(path: str) -> str:
    """The most special room that a file lies in."""
    inside = [
        room
        for room in ROOMS
        if room and f'{path.removesuffix(".py")}/'.startswith(f'{room}/')
    ]
    return max(inside, key=len, default='')


def is_module(name: str) -> bool:
    """Whether a dotted name is a folder or a file of the package."""
    path = PACKAGE / name.removeprefix('medic_mm.').replace('.', '/')
    return path.is_dir() or path.with_suffix('.py').is_file()


def imports(file: Path) -> list[str]:
    """Modules of the package that a file imports, inside of functions too."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f'{node.module}.{alias.name}' for alias in node.names]
            found += [name if is_module(name) else node.module for name in inner]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith('medic_mm.')]


def upward(file: Path) -> set[tuple[str, str]]:
    """(file, module) of each import of a later room."""
    path = str(file.relative_to(PACKAGE))
    own = ROOMS.index(room_of(path))
    found = set()
    for name in imports(file):
        target = name.removeprefix('medic_mm.').replace('.', '/')
        if ROOMS.index(room_of(target)) > own:
            found.add((path, name))
    return found


FILES = sorted(p for p in PACKAGE.rglob('*.py') if '.mim' not in p.parts)


def test_no_arrow_upwards() -> None:
    # the package's own front door opens rooms when they are asked for
    doors = {'__init__.py', 'registry.py'}
    found = set().union(*(upward(file) for file in FILES))
    assert {arrow for arrow in found if arrow[0] not in doors} == set()


def test_every_folder_is_a_room() -> None:
    folders = {str(f.parent.relative_to(PACKAGE)) for f in FILES} - {'.'}
    unknown = {f for f in folders if not room_of(f'{f}/x.py')}
    assert unknown == set()


@pytest.mark.parametrize('room', ['checkpoints', 'masking', 'models/losses'])
def test_functions_need_torch_alone(room: str) -> None:
    allowed = {'openmmlab.py'}  # the one file that talks to OpenMMLab
    for file in (PACKAGE / room).rglob('*.py'):
        tree = ast.parse(file.read_text())
        for node in tree.body:
            names = (
                [node.module or '']
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in getattr(node, 'names', [])]
                if isinstance(node, ast.Import)
                else []
            )
            hosts = [n for n in names if n.split('.')[0] in ('mmengine', 'mmpretrain')]
            assert not hosts or file.name in allowed, f'{file} imports {hosts}'
