"""Fixtures that several rooms share."""

from __future__ import annotations

import logging
import os
import tarfile
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

# hooks: --sample-seconds and --sample-seed
from sampling import pytest_addoption, pytest_configure  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _quiet_and_small() -> None:
    """One thread is faster on small tensors; the host lists every weight it draws."""
    torch.set_num_threads(1)
    # OpenMMLab's loggers keep the output streams of tests that have ended; complaints
    # about that would stand in what other tests print
    logging.raiseExceptions = False
    if not MMLogger.check_instance_created('tests'):
        MMLogger.get_instance('tests', log_level='WARNING')


@pytest.fixture(scope='session')
def root() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the shared folder, so that none is forgotten."""
    for item in items:
        if 'shared' in getattr(item, 'fixturenames', ()):
            item.add_marker('shared_data')


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of real data and teachers; tests that need it skip without it."""
    path = Path(os.environ.get('MEDIC_MM_SHARED', ROOT.parent / 'shared'))
    if not (path / 'data').is_dir():
        pytest.skip(f'needs the shared data folder; {path} has none')
    return path


@pytest.fixture(scope='session')
def cifar10(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 in folders: ``train/<class>/*.jpg``, ``val/<class>/*.jpg``."""
    target = tmp_path_factory.mktemp('cifar10')
    with tarfile.open(shared / 'data' / 'cifar10.tar') as archive:
        archive.extractall(target, filter='data')
    return target / 'cifar10'
