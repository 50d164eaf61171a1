"""Read the config that a checkpoint carries, without running it."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

from medic_mm.errors import FileError

_NUMBERS = {'inf': float('inf'), 'nan': float('nan')}


def parse_config_text(text: str) -> dict[str, Any]:
    """Settings of a config as MMEngine writes it into ``meta['cfg']``.

    That text is Python, and MMEngine itself would run it. Here it is only read:
    ``name = value`` with literals and ``dict(...)``. Any other expression becomes its
    own source text, so nothing in a checkpoint that was downloaded is executed.

    Args:
        text: The config, as ``Config.pretty_text`` gives it.

    Raises:
        ValueError: where the text is no list of settings.
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
            f'the config cannot be read (line {line.lineno} is no setting)'
        )
    return settings


def read_config_file(path: str | os.PathLike) -> dict[str, Any]:
    """Settings of a config file; a copy in a run's folder is parsed, never run.

    A run's folder may come from anyone, and MMEngine writes plain settings into it. A
    config that a user wrote inherits from others, so that MMEngine reads it, as the
    tools for training do.

    Raises:
        FileError: for a copy in a run's folder that is more than settings.
    """
    path = Path(path)
    if not _in_run_folder(path):
        from mmengine.config import Config

        return Config.fromfile(path).to_dict()
    try:
        return parse_config_text(path.read_text(encoding='utf-8', errors='replace'))
    except ValueError as error:
        raise FileError(
            f'config {path} lies in the folder of a run, where it is parsed and not '
            f'run, but {error}: give the config that the run came from'
        ) from error


def _in_run_folder(path: Path) -> bool:
    folder = path.absolute().parent
    return (
        folder.name == 'vis_data'
        or (folder / 'last_checkpoint').exists()
        or any(folder.glob('*/vis_data'))
    )


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
