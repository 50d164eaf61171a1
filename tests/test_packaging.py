"""What a build puts into the package, and what the metadata promises."""

from __future__ import annotations

import ast
import email
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import medic_mm

CLONE_ONLY = {'tools/run_tests.sh', 'tools/quickstart.sh'}
ONEDL = {'onedl-mmcv', 'onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmsegmentation'}
OPENMMLAB = {'mmcv', 'mmcv-lite', 'mmengine', 'mmpretrain', 'mmsegmentation'}
# modules whose distribution has another name
DISTRIBUTIONS = {
    'PIL': 'pillow',
    'open_clip': 'open_clip_torch',
    'skimage': 'scikit-image',
}
# the modules that come with OneDL and with OpenMMLab
OPENMMLAB_MODULES = {'mmengine', 'mmcv', 'mmpretrain', 'cv2'}

# prints the folder that `mim` looks into, found without importing the package
FIND_MIM = """
import importlib.util, pathlib, sys
spec = importlib.util.find_spec('medic_mm')
print(pathlib.Path(spec.submodule_search_locations[0], '.mim'))
assert not {'torch', 'medic_mm'} & set(sys.modules)
"""

HIDE_HOST = """
import sys
class HideHost:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmengine':
            raise ModuleNotFoundError(f'No module named {name!r}')
sys.meta_path.insert(0, HideHost())
import medic_mm.registry
"""


def run(*command: str | Path, cwd: Path) -> str:
    # a clone on PYTHONPATH would count as installed
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(hook: str, source: Path, target: Path) -> Path:
    """Build as pip does, by a hook of the build backend; returns the file built."""
    target.mkdir()
    code = f'import sys, setuptools.build_meta as m; m.{hook}(sys.argv[1])'
    run(sys.executable, '-c', code, target, cwd=source)
    (built,) = target.iterdir()
    return built


def install(wheel: Path, target: Path) -> Path:
    """Install a wheel alone into an empty environment; returns its ``.mim``."""
    venv.create(target, with_pip=False)
    python = target / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--python', python, '--no-input']
    run(*pip, 'install', '--no-deps', '--no-compile', wheel, cwd=target)
    return Path(run(python, '-I', '-c', FIND_MIM, cwd=target).strip())


def list_files(folder: Path) -> set[str]:
    files = (path for path in folder.rglob('*') if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


@pytest.fixture
def source(root: Path, tmp_path: Path) -> Path:
    """A copy of the sources, so that no build writes into the repository."""
    target = tmp_path / 'source'
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('medic_mm', 'configs', 'tools', 'tests', 'requirements'):
        shutil.copytree(root / name, target / name, ignore=ignore)
    for path in root.iterdir():
        if path.is_file():
            shutil.copy(path, target)
    for folder in (target / 'configs', target / 'tools'):
        (folder / '__pycache__').mkdir()
        (folder / '__pycache__' / 'stale.cpython-311.pyc').touch()
    return target


@pytest.fixture
def packed(root: Path) -> set[str]:
    """The files that belong into ``.mim``."""
    found = {
        f'{folder}/{name}'
        for folder in ('configs', 'tools')
        for name in list_files(root / folder)
        if '__pycache__' not in name
    }
    assert found >= {'configs/medic/vitb_300e.py', 'tools/train.py'}
    return found - CLONE_ONLY | {'model-index.yml'}


def test_wheel_brings_configs_and_tools(
    source: Path, packed: set[str], tmp_path: Path
) -> None:
    # left over from an earlier build: must not come back
    stale = source / 'build' / 'lib' / 'medic_mm' / '.mim' / 'configs' / 'stale.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    run(*pip, '--wheel-dir', tmp_path / 'wheel', source, cwd=tmp_path)
    (wheel,) = (tmp_path / 'wheel').iterdir()
    mim = install(wheel, tmp_path / 'environment')

    assert list_files(mim) == packed
    assert not (source / 'medic_mm' / '.mim').exists()
    for name in packed:
        assert (mim / name).read_bytes() == (source / name).read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition('/')[0] for name in archive.namelist()}
    version = medic_mm.__version__
    assert top == {'medic_mm', f'medic_mm-{version}.dist-info'}


def test_source_distribution_builds_the_same_wheel(
    source: Path, tmp_path: Path
) -> None:
    direct = build('build_wheel', source, tmp_path / 'direct')
    archive = build('build_sdist', source, tmp_path / 'sdist')
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(tmp_path, filter='data')
    unpacked_source = tmp_path / archive.name.removesuffix('.tar.gz')
    again = build('build_wheel', unpacked_source, tmp_path / 'again')
    with zipfile.ZipFile(direct) as first, zipfile.ZipFile(again) as second:
        assert sorted(second.namelist()) == sorted(first.namelist())


def test_editable_install_finds_the_files_of_the_clone(
    source: Path, packed: set[str], tmp_path: Path
) -> None:
    wheel = build('build_editable', source, tmp_path / 'wheel')
    mim = install(wheel, tmp_path / 'environment')
    assert mim == source / 'medic_mm' / '.mim'
    for name in packed:
        assert (mim / name).read_bytes() == (source / name).read_bytes()
    (source / 'configs' / 'added_later.py').write_text('a = 1\n')
    assert (mim / 'configs' / 'added_later.py').read_text() == 'a = 1\n'
    # a second install replaces what the first one made
    build('build_editable', source, tmp_path / 'second')


@pytest.fixture(scope='module')
def metadata(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Message:
    folder = tmp_path_factory.mktemp('metadata')
    egg = [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', folder]
    run(*egg, cwd=root)
    return email.message_from_string(
        (folder / 'medic_mm.egg-info' / 'PKG-INFO').read_text(encoding='utf-8')
    )


def required(metadata: Message, extra: str = '') -> set[str]:
    """Names that installing the package with an extra asks for."""
    found = map(Requirement, metadata.get_all('Requires-Dist'))
    return {
        requirement.name
        for requirement in found
        if requirement.marker is None or requirement.marker.evaluate({'extra': extra})
    }


def test_no_extra_mixes_onedl_and_openmmlab(metadata: Message) -> None:
    extras = set(metadata.get_all('Provides-Extra'))
    assert extras >= {'onedl', 'openmmlab', 'seg', 'tests', 'vis', 'export', 'all'}
    assert not required(metadata) & (ONEDL | OPENMMLAB)
    for extra in extras:
        names = required(metadata, extra)
        assert not (names & ONEDL and names & OPENMMLAB), extra
    assert required(metadata, 'onedl') & ONEDL == ONEDL - {'onedl-mmsegmentation'}
    assert required(metadata, 'all') >= ONEDL
    stock = required(metadata, 'openmmlab') & OPENMMLAB
    assert stock == {'mmcv-lite', 'mmengine', 'mmpretrain'}


def test_version_has_one_source(root: Path, metadata: Message) -> None:
    assert metadata['Version'] == medic_mm.__version__
    for name in ('setup.py', 'pyproject.toml'):
        assert medic_mm.__version__ not in (root / name).read_text(encoding='utf-8')


def test_python_versions_agree(root: Path, metadata: Message) -> None:
    assert set(metadata['Requires-Python'].split(',')) == {'>=3.10', '<3.13'}
    script = (root / 'tools' / '_env.sh').read_text(encoding='utf-8')
    assert '(3, 10) <= sys.version_info[:2] < (3, 13)' in script


def imported_modules(path: Path) -> set[str]:
    """Top-level names of the absolute imports of a file, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
    return {name.partition('.')[0] for name in names}


def test_every_import_is_declared(root: Path, metadata: Message) -> None:
    declared = required(metadata)
    known = set(sys.stdlib_module_names) | OPENMMLAB_MODULES | {'medic_mm'}
    paths = [*(root / 'medic_mm').rglob('*.py'), *(root / 'tools').rglob('*.py')]
    for path in paths:
        if '.mim' in path.parts:
            continue
        for module in imported_modules(path) - known:
            assert DISTRIBUTIONS.get(module, module) in declared, (
                f'{path.relative_to(root)} imports {module}, which is not in '
                'requirements/runtime.txt'
            )


def test_model_index_lists_every_metafile(root: Path) -> None:
    lines = (root / 'model-index.yml').read_text(encoding='utf-8').splitlines()
    listed = {line.removeprefix('  - ') for line in lines if line.startswith('  - ')}
    found = (root / 'configs').rglob('metafile.yml')
    assert listed == {path.relative_to(root).as_posix() for path in found}


def test_missing_host_is_told_in_one_sentence(root: Path) -> None:
    command = [sys.executable, '-c', HIDE_HOST]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith('ImportError: medic_mm needs a host: install ')
    assert 'medic_mm[onedl]' in message
    assert 'medic_mm[openmmlab]' in message
