"""A checkpoint of pre-training: the backbone's weights and the run that made them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medic_mm.checkpoints.config_text import parse_config_text
from medic_mm.checkpoints.description import read_description
from medic_mm.checkpoints.loading import WEIGHT_KEYS, read_checkpoint

PREFIX = 'backbone.'


@dataclass(frozen=True)
class Source:
    """What a backbone is made from.

    Attributes:
        path: The checkpoint.
        config: Settings of its run, as plain containers.
        weights: The backbone's weights in the layout ``'mmpretrain'``, with prefix.
        meta: What MMEngine noted in the checkpoint: epoch, iteration, versions.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """The ``model`` of the config."""
        return self.config['model']

    @property
    def backbone(self) -> dict[str, Any]:
        """The ``model.backbone`` of the config."""
        return self.config['model']['backbone']


def read_source(
    path: str | os.PathLike, config: str | os.PathLike | Mapping | None = None
) -> Source:
    """Read a checkpoint and the config of its run.

    Args:
        path: A checkpoint of MMEngine, a file of ``tools/convert.py`` in the layout
            ``mmpretrain``, or another file with weights below ``backbone.``; pickled
            code in it is refused.
        config: A config file, or a config. Default: the one in the checkpoint, which is
            read without running it.

    Raises:
        FileNotFoundError: for no such file.
        RuntimeError: for a file that is torn, carries code, has no backbone, or no
            config where none is given.
    """
    path = Path(path)
    content = read_checkpoint(path)
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    weights = _backbone_weights(path, content)
    # tools/convert.py keeps the config there
    described = read_description(path)
    meta = {**_numbers(described), **meta}
    settings = _settings(path, meta.get('cfg', described.get('config')), config)
    model = settings.get('model')
    if not isinstance(model, dict) or not isinstance(model.get('backbone'), dict):
        raise RuntimeError(
            f'the config of checkpoint {path} has no model.backbone: it must be one of '
            'pre-training'
        )
    return Source(
        path, settings, weights, {k: v for k, v in meta.items() if k != 'cfg'}
    )


def _backbone_weights(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    state = next(
        (content[key] for key in WEIGHT_KEYS if isinstance(content.get(key), dict)),
        content,
    )
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    weights = {key: value for key, value in tensors.items() if key.startswith(PREFIX)}
    if not weights:
        names = ', '.join(list(tensors)[:4]) or 'nothing'
        raise RuntimeError(
            f'checkpoint {path} has no weights below {PREFIX!r} (it holds {names}): '
            'give one of pre-training, not of its teacher; tools/convert.py brings '
            'weights of other code bases into this layout'
        )
    return weights


def _numbers(described: Mapping[str, str]) -> dict[str, int]:
    keys = [key for key in ('epoch', 'iter') if described.get(key, '').isdigit()]
    return {key: int(described[key]) for key in keys}


def _settings(
    path: Path, in_checkpoint: Any, given: str | os.PathLike | Mapping | None
) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return _plain(given)
    if given is not None:
        from mmengine.config import Config

        if not Path(given).is_file():
            raise FileNotFoundError(f'config {str(given)!r} does not exist')
        return _plain(Config.fromfile(given))
    if isinstance(in_checkpoint, Mapping):
        return _plain(in_checkpoint)
    if not isinstance(in_checkpoint, str):
        raise RuntimeError(
            f"checkpoint {path} has no config of its run (meta['cfg']): give the "
            'config file of its pre-training too'
        )
    try:
        return parse_config_text(in_checkpoint)
    except ValueError as error:
        raise RuntimeError(
            f"checkpoint {path}: meta['cfg']: {error}; give the config file of its "
            'pre-training too'
        ) from error


def _plain(value: Any) -> Any:
    """Copy with plain dictionaries for the host's own, which answer any attribute."""
    if isinstance(value, Mapping) or hasattr(value, 'to_dict'):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
