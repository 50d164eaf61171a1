"""A checkpoint of pre-training: the backbone's weights and the run that made them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medic_mm.checkpoints.description import (
    parse_config_text,
    read_description,
)
from medic_mm.checkpoints.reading import find_weights, read_checkpoint
from medic_mm.checkpoints.sizes import Grid, config_grid, grid_text, recorded_grid
from medic_mm.errors import FileError, MissingFileError
from medic_mm.export.preprocessing import Preprocessing, describe_preprocessing
from medic_mm.helpers import listed
from medic_mm.models.vit.architecture import Architecture, describe_backbone

PREFIX = 'backbone.'


@dataclass(frozen=True)
class Source:
    """What a backbone is made from.

    Attributes:
        path: The checkpoint.
        config: Settings of its run, as plain containers.
        weights: The backbone's weights in the layout ``'mmpretrain'``, with prefix.
        meta: What mmengine noted in the checkpoint: epoch, iteration, versions.
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
        path: A checkpoint of mmengine, a file of ``tools/convert.py`` in the layout
            ``mmpretrain``, or another file with weights below ``backbone.``; pickled
            code in it is refused.
        config: A config file, or a config. Default: the one in the checkpoint, which is
            read without running it.

    Raises:
        MissingFileError: for no such file.
        FileError: for a file that is torn, carries code, has no backbone, or no config
            where none is given.
    """
    path = Path(path)
    content = read_checkpoint(path)
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    weights = _backbone_weights(path, find_weights(path, content))
    described = read_description(path)  # tools/convert.py keeps the config there
    keys = [key for key in ('epoch', 'iter') if described.get(key, '').isdigit()]
    meta = {**{key: int(described[key]) for key in keys}, **meta}
    settings = _settings(path, meta.get('cfg', described.get('config')), config)
    model = settings.get('model')
    if not isinstance(model, dict) or not isinstance(model.get('backbone'), dict):
        raise FileError(
            f'the config of checkpoint {path} has no model.backbone: it must be one of '
            'pre-training'
        )
    _require_grid(path, model['backbone'], weights, recorded_grid(path, content))
    meta.pop('cfg', None)
    return Source(path, settings, weights, meta)


def describe_source(source: Source) -> tuple[Architecture, Preprocessing]:
    """Architecture and preprocessing of a checkpoint's backbone.

    Raises:
        UserError: for settings that a timm ViT does not have.
    """
    architecture = describe_backbone(source.backbone)
    return architecture, describe_preprocessing(source.config, architecture.image_size)


def _backbone_weights(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {key: value for key, value in tensors.items() if key.startswith(PREFIX)}
    if not weights:
        raise FileError(
            f'checkpoint {path} has no weights below {PREFIX!r} (it holds '
            f'{listed(tensors, 4)}): '
            'give one of pre-training, not of its teacher; tools/convert.py brings '
            'weights of other code bases into this layout'
        )
    return weights


def _require_grid(
    path: Path, backbone: Mapping, weights: Mapping[str, Tensor], recorded: Grid | None
) -> None:
    """Refuse a config for other images with as many patches as the file's."""
    positions = weights.get(f'{PREFIX}pos_embed')
    wanted = config_grid(backbone)
    if (
        positions is not None
        and None not in (recorded, wanted)
        and recorded != wanted
        and positions.dim() == 3
        and positions.shape[1] - 1 == math.prod(recorded) == math.prod(wanted)
    ):
        raise FileError(
            f'checkpoint {path} is of {grid_text(recorded)} patches, but img_size and '
            f'patch_size of the config ask for {grid_text(wanted)}: give the config of '
            'its own pre-training'
        )


def _settings(
    path: Path, in_checkpoint: Any, given: str | os.PathLike | Mapping | None
) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return _plain(given)
    if given is not None:
        if not Path(given).is_file():
            raise MissingFileError(f'config {str(given)!r} does not exist')
        from medic_mm.checkpoints.openmmlab import read_config_file  # needs mmengine

        return _plain(read_config_file(given))
    if isinstance(in_checkpoint, Mapping):
        return _plain(in_checkpoint)
    if not isinstance(in_checkpoint, str):
        raise FileError(
            f"checkpoint {path} has no config of its run (meta['cfg']): give the "
            'config file of its pre-training too'
        )
    try:
        return parse_config_text(in_checkpoint)
    except ValueError as error:
        raise FileError(
            f"checkpoint {path}: meta['cfg']: {error}; give the config file of its "
            'pre-training too'
        ) from error


def _plain(value: Any) -> Any:
    """Copy with plain dictionaries for mmengine's, which answer any attribute."""
    if isinstance(value, Mapping) or hasattr(value, 'to_dict'):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
