"""What a checkpoint says of the run that made it: its config is read and never run."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from typing import Any

from medic_mm.checkpoints.reading import read_metadata
from medic_mm.checkpoints.saving import DESCRIPTION

_NUMBERS = {'inf': float('inf'), 'nan': float('nan')}


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


def parse_config_text(text: str) -> dict[str, Any]:
    """Settings of a config as mmengine writes it into ``meta['cfg']``.

    That text is Python, and mmengine itself would run it. Here it is only read:
    ``name = value`` with literals and ``dict(...)``. Any other expression becomes its
    own source text, so nothing in a checkpoint that was downloaded is executed.

    Args:
        text: The config, as ``Config.pretty_text`` gives it.

    Raises:
        ValueError: where the text is not a list of settings.
    """
    try:
        lines = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'the config cannot be read ({error})') from error
    settings: dict[str, Any] = {}
    for line in lines:
        if isinstance(line, ast.Assign) and len(line.targets) == 1:
            target = line.targets[0]
            if isinstance(target, ast.Name):
                settings[target.id] = _value(line.value)
                continue
        raise ValueError(
            f'the config cannot be read (line {line.lineno} is not a setting)'
        )
    return settings


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
        found['teacher'] = json.dumps(teacher, default=str)
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor')
    if isinstance(preprocessor, dict):
        keys = [key for key in ('mean', 'std', 'to_rgb') if key in preprocessor]
        statistics = {key: preprocessor[key] for key in keys}
        found['normalisation'] = json.dumps(statistics, default=str)
    return {**found, 'config': text}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Set)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key) for key in node.keys if key is not None]
        if all(isinstance(key, (str, int, float, tuple)) for key in keys):
            return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.Name) and node.id in _NUMBERS:
        return _NUMBERS[node.id]
    if isinstance(node, ast.Call) and _is_plain_dict(node):
        return {str(word.arg): _value(word.value) for word in node.keywords}
    return ast.unparse(node)


def _is_plain_dict(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
        and not node.args
        and all(word.arg is not None for word in node.keywords)
    )
