"""Where OpenMMLab names files: its reader, its ``init_cfg``, its configs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)
from mmengine.utils import apply_to
from torch import Tensor, nn

from medic_mm.checkpoints.backbone import load_part, weights_below
from medic_mm.checkpoints.conversion import convert_weights
from medic_mm.checkpoints.description import parse_config_text
from medic_mm.checkpoints.reading import find_weights, read_checkpoint
from medic_mm.checkpoints.sizes import recorded_grid
from medic_mm.checkpoints.strict import LoadReport
from medic_mm.errors import FileError, UserError
from medic_mm.helpers import type_name

_MODEL_ZOOS: dict[str, Callable[[], Mapping[str, str]]] = {
    'open-mmlab://': get_external_models,
    'openmmlab://': get_external_models,
    'torchvision://': get_torchvision_models,
    'modelzoo://': get_torchvision_models,
}
#: Layouts that a network of OpenMMLab may have.
_TARGETS = ('mmpretrain', 'mmseg')
_NOT_FETCHED = ('mmcls://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


def register_readers() -> None:
    """Let everything that OpenMMLab loads go through :func:`read_checkpoint`.

    mmengine falls back to unsafe loading for a file that carries code, and its stock
    release never loads safely. ``--resume``, ``load_from``, ``Pretrained`` in any
    ``init_cfg`` and the backbones of mmseg that read files by themselves ask
    mmengine's public registry of readers for one, so this is one door for all of them.
    Importing ``medic_mm.registry`` calls it, which happens wherever a component of
    this package is named: in our tools, and in OpenMMLab's own.
    """
    register = CheckpointLoader.register_scheme
    addresses = ['http://', 'https://', *_MODEL_ZOOS, *_NOT_FETCHED]
    register(['', *addresses], read_for_openmmlab, force=True)


def read_for_openmmlab(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file as mmengine's loaders do, but never run what it carries.

    Args:
        filename: What :func:`local_file` takes.
        map_location: A device for the tensors; they stay on the CPU for None.

    Raises:
        MissingFileError: for no such file.
        FileError: for one that carries code, is damaged, or not a checkpoint, or cannot
            be fetched.
    """
    content = read_checkpoint(local_file(filename))
    meta = content.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        # mmengine would run this text as Python on resuming, to compare a number of
        # GPUs that only mmcv wrote
        meta.setdefault('cfg', meta.pop('config'))
        meta.pop('config', None)
    if map_location is None or callable(map_location) or str(map_location) == 'cpu':
        return content
    return apply_to(
        content, lambda x: isinstance(x, Tensor), lambda x: x.to(map_location)
    )


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


def read_config_file(path: str | os.PathLike) -> dict[str, Any]:
    """Settings of a config file; a copy in a run's folder is parsed, never run.

    A run's folder may come from anyone, and mmengine writes plain settings into it. A
    config that a user wrote inherits from others, so that mmengine reads it, as the
    tools for training do.

    Raises:
        FileError: for a copy in a run's folder that is more than settings.
    """
    path = Path(path)
    folder = path.absolute().parent
    if not (
        folder.name == 'vis_data'
        or (folder / 'last_checkpoint').exists()
        or any(folder.glob('*/vis_data'))
    ):
        return Config.fromfile(path).to_dict()
    try:
        return parse_config_text(path.read_text(encoding='utf-8', errors='replace'))
    except ValueError as error:
        raise FileError(
            f'config {path} lies in the folder of a run, where it is parsed and not '
            f'run, but {error}: give the config that the run came from'
        ) from error


def take_pretrained(module: nn.Module) -> list[dict[str, Any]]:
    """Take the steps that load a file out of a module's ``init_cfg``.

    OpenMMLab would load them without checking, and backbones that draw weights of
    their own would draw over what was loaded.

    Returns:
        The steps, in their order.
    """
    steps = getattr(module, 'init_cfg', None)
    steps = [steps] if isinstance(steps, Mapping) else list(steps or ())
    taken = [dict(step) for step in steps if is_pretrained(step)]
    if taken:
        kept = [step for step in steps if not is_pretrained(step)]
        module.init_cfg = kept or None  # type: ignore[assignment]
    return taken


def is_pretrained(step: Any) -> bool:
    """Whether a step of ``init_cfg`` loads a file."""
    return type_name(step) in ('Pretrained', 'PretrainedInit')


def load_pretrained(
    module: nn.Module,
    path: str,
    prefix: str | None = None,
    place: str = 'backbone',
    new: Sequence[str] = (),
    left: Sequence[str] = (),
    advice: Callable[[Iterable[str]], str] = lambda names: '',
) -> tuple[LoadReport, str]:
    """Load a file into a module, strictly; names of other code bases are converted.

    Args:
        module: The module.
        path: The file, or an address that OpenMMLab knows.
        prefix: Start of the names to load; ``''`` or None takes all.
        place: Where the module stands in its model; a converted file has the weights
            of a backbone below ``backbone.``.
        new: Beginnings of names that may be missing in the file.
        left: Beginnings of names that the file may have beyond the module.
        advice: From names that differ to what else the user can do.

    Returns:
        What was loaded, and how the file was converted: ``''`` where it was not.

    Raises:
        FileError: for a file that does not fit; names the weights.
    """
    file = local_file(path)
    content = read_checkpoint(file, mmap=True)
    weights = find_weights(file, content)
    prefix = f'{prefix}.' if prefix and not prefix.endswith('.') else prefix or ''
    origin = f'checkpoint {path}'
    wanted = set(module.state_dict())
    own: dict[str, Tensor] = {}

    def remedy(missing: set[str], unexpected: set[str]) -> str:
        cause = _likely_cause(own, wanted, missing, unexpected)
        others = advice([*sorted(missing), *sorted(unexpected)])
        return '; '.join(filter(None, (cause, others)))

    load = partial(
        load_part,
        module,
        grids=(None, recorded_grid(file, content)),
        remedy=remedy,
        new=new,
        left=left,
    )
    try:
        own = weights_below(prefix, weights, origin)
        return load(own, origin), ''
    except FileError as error:
        problem = error
    # a file of another code base, so far; else what does not fit is of interest
    other_names = not set(own) & wanted
    for target in _TARGETS:
        try:
            done = convert_weights(weights, 'auto', target)
            part = f'{place.rpartition(".")[2]}.' if place else ''
            start = part if target == 'mmpretrain' else ''
            size = len(start)
            found = {
                k[size:]: v for k, v in done.weights.items() if k.startswith(start)
            }
            if not found:
                raise UserError(f'nothing in it belongs to {place}')
            return load(found, f'{origin}, converted,'), done.summary()
        except FileError as error:
            problem, other_names = error if other_names else problem, False
        except ValueError as error:
            if other_names and target == _TARGETS[0]:
                problem = FileError(f'{problem}, and it cannot be converted: {error}')
    raise problem


def _likely_cause(
    given: Iterable[str], wanted: set[str], missing: set[str], unexpected: set[str]
) -> str:
    """Why names differ, and what to do, where the names show it."""
    if any('relative_position' in name for name in unexpected):
        return (
            'Pre-training had relative positions: use the config beit-*_medic-pre_*, '
            "whose backbone is mmpretrain's BEiTViT"
        )
    if any('relative_position' in name for name in missing):
        return (
            'Pre-training had absolute positions: use the config vit-*, whose '
            "backbone is mmpretrain's VisionTransformer"
        )
    scale = 'set model.backbone.layer_scale_init_value'
    if missing and all('gamma' in name for name in missing):
        return f'Pre-training had no LayerScale: {scale}=0'
    if unexpected and all('gamma' in name for name in unexpected):
        return f'Pre-training had LayerScale: {scale} to its value, 0.1 for MEDiC'
    parts = [name.partition('.') for name in given]
    below = [start for start, _, rest in parts if rest in wanted]
    if below and missing:
        return f'The names of the file begin with {below[0]}.: set prefix'
    if any(name.startswith(('layers.', 'blocks.')) for name in unexpected):
        return 'It is of another architecture, or in another layout of names'
    return ''


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
