"""What a checkpoint tells of the run that made it, as texts for metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from medic_mm.checkpoints.config_text import parse_config_text
from medic_mm.checkpoints.loading import read_metadata
from medic_mm.checkpoints.saving import DESCRIPTION


def describe_run(content: Mapping[str, Any]) -> dict[str, str]:
    """Method, config, teacher, epoch and normalisation, as far as they are known.

    Args:
        content: A checkpoint, as :func:`~medic_mm.checkpoints.read_checkpoint` returns
            it. Its config is read, never run.

    Returns:
        Texts: ``method`` (the algorithm's type), ``teacher`` and ``normalisation``
        (JSON of the config's settings), ``epoch``, ``iter`` and ``config`` (the whole
        config). A description that an earlier conversion wrote is returned as it is.
    """
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    earlier = meta.get(DESCRIPTION)
    config = meta.get('cfg')
    if isinstance(earlier, Mapping):
        known = {str(key): str(value) for key, value in earlier.items()}
        return {**known, 'config': config} if isinstance(config, str) else known
    found = {}
    for key in ('epoch', 'iter'):
        value = meta.get(key, content.get(key))
        if isinstance(value, int):
            found[key] = str(value)
    if isinstance(config, str):
        found |= _describe_config(config)
    return found


def read_description(path: str | os.PathLike) -> dict[str, str]:
    """The description in a ``.safetensors`` file; empty for any other file."""
    return {k: v for k, v in read_metadata(path).items() if k != 'format'}


def _describe_config(text: str) -> dict[str, str]:
    try:
        config = parse_config_text(text)
    except ValueError as error:
        return {'config': text, 'config_problem': str(error)}
    model = config.get('model')
    model = model if isinstance(model, dict) else {}
    found = {}
    if isinstance(model.get('type'), str):
        found['method'] = model['type']
    teacher = model.get('teacher') or model.get('target_generator')
    if teacher:
        found['teacher'] = _json(teacher)
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor')
    if isinstance(preprocessor, dict):
        keys = [key for key in ('mean', 'std', 'to_rgb') if key in preprocessor]
        found['normalisation'] = _json({key: preprocessor[key] for key in keys})
    return {**found, 'config': text}


def _json(settings: Any) -> str:
    return json.dumps(settings, default=str)
