"""OpenMMLab reads checkpoints through this package's reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)
from mmengine.utils import apply_to
from torch import Tensor

from medic_mm.checkpoints.loading import read_checkpoint
from medic_mm.errors import FileError, UserError

_MODEL_ZOOS: dict[str, Callable[[], Mapping[str, str]]] = {
    'open-mmlab://': get_external_models,
    'openmmlab://': get_external_models,
    'torchvision://': get_torchvision_models,
    'modelzoo://': get_torchvision_models,
}
_NOT_FETCHED = ('mmcls://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


def register_readers() -> None:
    """Let everything that OpenMMLab loads go through :func:`read_checkpoint`.

    MMEngine falls back to unsafe loading for a file that carries code, and its stock
    release never loads safely. ``--resume``, ``load_from``, ``Pretrained`` in any
    ``init_cfg`` and the backbones of mmseg that read files by themselves ask
    MMEngine's public registry of readers for one, so this is one door for all of them.
    Importing ``medic_mm.registry`` calls it, which happens wherever a component of
    this package is named: in our tools, and in OpenMMLab's own.
    """
    register = CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    addresses = ['http://', 'https://', *_MODEL_ZOOS, *_NOT_FETCHED]
    register(addresses, load_from_address, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a local file as MMEngine's loaders do, but never run what it carries.

    Args:
        filename: The file; ``~`` is the home folder.
        map_location: A device for the tensors; they stay on the CPU for None.

    Raises:
        FileNotFoundError: for no such file.
        RuntimeError: for one that carries code, is damaged, or no checkpoint.
    """
    content = read_checkpoint(os.path.expanduser(filename))
    meta = content.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        # MMEngine would run this text as Python on resuming, to compare a number of
        # GPUs that only MMCV wrote
        meta.setdefault('cfg', meta.pop('config'))
        meta.pop('config', None)
    if map_location is None or callable(map_location) or str(map_location) == 'cpu':
        return content
    return apply_to(
        content, lambda x: isinstance(x, Tensor), lambda x: x.to(map_location)
    )


def load_from_address(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch what an address or a name of a model names, and read it.

    Raises:
        FileError: as :func:`local_file` and :func:`load_from_local`.
    """
    return load_from_local(local_file(filename), map_location)


def local_file(filename: str) -> str:
    """A local file for whatever OpenMMLab takes: a path, an address, a model's name.

    A file is fetched once, into the folder where torch keeps such files.

    Raises:
        FileError: where it cannot be fetched.
        UserError: for a name that nobody knows, or another storage.
    """
    scheme, mark, name = filename.partition('://')
    if not mark:
        return os.path.expanduser(filename)
    if scheme in ('http', 'https'):
        return _fetch(filename)
    if f'{scheme}://' not in _MODEL_ZOOS:
        raise UserError(
            f'checkpoint {filename!r} is not a local file: copy it to a disk of this '
            'machine and give its path'
        )
    known = _MODEL_ZOOS[f'{scheme}://']()
    if 'mmlab' in scheme:
        name = get_deprecated_model_names().get(name, name)
    if name not in known:
        raise UserError(
            f'checkpoint {filename!r} is not known: no model of {scheme} is called '
            f'{name!r}; a local file is given by its path'
        )
    return local_file(known[name])


def _fetch(address: str) -> str:
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    file = folder / Path(urlparse(address).path).name
    if is_main_process() and not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(file), progress=False)
        except (OSError, ValueError) as error:
            raise FileError(
                f'checkpoint {address} cannot be fetched ({error}): fetch it by other '
                f'means and give the file itself, or put it at {file}'
            ) from error
    barrier()
    return str(file)
