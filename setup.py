"""Build and metadata of the distribution ``medic_mm``.

Tool settings are in ``pyproject.toml``; requirements are read from ``requirements/``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = 'medic_mm'
# scripts that set up or test a clone have nothing to do in an installed package
CLONE_ONLY = ('run_tests.sh', 'quickstart.sh')


def read_version() -> str:
    """The version, read without importing the package (torch may be absent)."""
    text = Path(PACKAGE, 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE).group(1)


def read_requirements(name: str) -> list[str]:
    """The requirements of ``requirements/<name>.txt``, comments dropped."""
    text = Path('requirements', f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def read_extras() -> dict[str, list[str]]:
    """The extras; none mixes the two builds, which overwrite each other's files."""
    extras = {
        'onedl': read_requirements('onedl'),
        'seg': read_requirements('onedl-seg'),
        'openmmlab': read_requirements('openmmlab'),
        'tests': read_requirements('tests'),
        'vis': read_requirements('optional'),
        'export': read_requirements('export'),
    }
    names = ('onedl', 'seg', 'tests', 'vis', 'export')
    extras['all'] = [line for name in names for line in extras[name]]
    return extras


class BuildWithMim(build_py):
    """``build_py`` that also makes ``medic_mm/.mim``, where ``mim`` looks things up.

    ``.mim`` holds ``configs/``, ``tools/`` and ``model-index.yml``. A regular build
    copies them into the build folder and leaves the source tree as it is. An editable
    build links them inside the source tree, so that the clone's own files are found.
    Doing this in ``build_py`` covers wheels, editable installs and wheels built from a
    source distribution alike: it is the one command that all of them run.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            self._link()
            return
        # an earlier build may have left files there that exist no more
        shutil.rmtree(Path(self.build_lib, PACKAGE, '.mim'), ignore_errors=True)
        for target, source in self._mim_files().items():
            self.mkpath(os.path.dirname(target))
            self.copy_file(source, target)

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._mim_files()}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return list(dict.fromkeys([*outputs, *self._mim_files()]))

    def _mim_files(self) -> dict[str, str]:
        """Built file to source file."""
        sources = [Path('model-index.yml')]
        for folder in ('configs', 'tools'):
            sources += sorted(path for path in Path(folder).rglob('*') if _packed(path))
        mim = Path(self.build_lib, PACKAGE, '.mim')
        return {str(mim / source): str(source) for source in sources}

    def _link(self) -> None:
        mim = Path(PACKAGE, '.mim')
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir()
        for name in ('configs', 'tools', 'model-index.yml'):
            try:
                (mim / name).symlink_to(Path('..', '..', name), Path(name).is_dir())
            except OSError:
                # Windows without the right to make links
                copy = shutil.copytree if Path(name).is_dir() else shutil.copy
                copy(name, mim / name)


def _packed(path: Path) -> bool:
    hidden = any(part.startswith('.') for part in path.parts)
    bytecode = '__pycache__' in path.parts or path.suffix == '.pyc'
    return path.is_file() and not (hidden or bytecode or path.name in CLONE_ONLY)


setup(
    name=PACKAGE,
    version=read_version(),
    description='MEDiC and MIM-HD masked distillation for the OpenMMLab stack',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='medic_mm developers',
    license='Apache-2.0',
    keywords=['self-supervised learning', 'distillation', 'masked image modeling'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['runs/page.html']},
    entry_points={'console_scripts': ['medic-mm = medic_mm.cli.main:main']},
    install_requires=read_requirements('runtime'),
    extras_require=read_extras(),
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
