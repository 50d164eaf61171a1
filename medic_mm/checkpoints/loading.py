"""Read checkpoint files without running code that they may carry."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Keys under which checkpoints of the field keep their weights, most specific first.
WEIGHT_KEYS = ('state_dict', 'model', 'module')


def read_checkpoint(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """Read a ``.safetensors`` file or one written by ``torch.save``, onto the CPU.

    Of ``torch.save`` files only tensors, plain containers and what MMEngine's runner
    adds (numpy numbers and arrays, its log history) are accepted. A file that would run
    anything else is refused: there is no unsafe second attempt.

    Args:
        path: A local file.
        mmap: Leave the tensors in the file until they are used, which saves memory. The
            file must not be written in place as long as they live; it may be replaced.
            Without effect on files in the format of torch before 1.6.

    Returns:
        What the file holds, as it is; for ``.safetensors`` its tensors by name.

    Raises:
        FileNotFoundError: for no such file.
        RuntimeError: for a file that carries code, is incomplete or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist or is no file')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            content = torch.load(
                path,
                map_location='cpu',
                weights_only=True,
                mmap=mmap and zipfile.is_zipfile(path),
            )
    except MemoryError:
        raise
    except Exception as error:
        raise RuntimeError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise RuntimeError(
            f'checkpoint {path} holds a {type(content).__name__}, not a dictionary of '
            'weights'
        )
    return content


def read_state_dict(path: str | os.PathLike, mmap: bool = False) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, wherever it keeps them.

    Looks under ``state_dict``, ``model`` and ``module``; a file without these is taken
    as the weights themselves.

    Args:
        path: A local file.
        mmap: As in :func:`read_checkpoint`.

    Raises:
        RuntimeError: for a file without tensors; also as :func:`read_checkpoint`.
    """
    return find_weights(path, read_checkpoint(path, mmap))


def find_weights(path: str | os.PathLike, content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` returned for ``path``.

    Raises:
        RuntimeError: where it holds no tensors.
    """
    for key in WEIGHT_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights:
        keys = ', '.join(map(str, list(content)[:8])) or 'nothing'
        raise RuntimeError(f'checkpoint {path} has no weights: it holds {keys}')
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise RuntimeError(
            f'reading {path} needs the package safetensors: pip install safetensors'
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(
            f'checkpoint {path} is incomplete or no safetensors file ({error})'
        ) from error


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    code = re.search(r'GLOBAL (\S+)|unrecognized function (.+)', text)
    if isinstance(error, UnpicklingError) and code:
        return (
            f'checkpoint {path} carries pickled code ({code[1] or code[2]}) and was '
            'not loaded: keep only its tensors in the file, or convert it to '
            '.safetensors'
        )
    with path.open('rb') as file:
        start = file.read(2)
    if start[:1] == b'\x80' and start[1:] > b'\x02':
        return (
            f'checkpoint {path} is a pickle (protocol {start[1]}) that torch.save did '
            'not write and may carry code, so it was not loaded: keep only its tensors '
            'in the file, or convert it to .safetensors'
        )
    # torch's first lines advise to load the file unsafely
    detail = re.search(r'WeightsUnpickler error:\s*(.+)', text)
    lines = (detail[1] if detail else text).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return f'checkpoint {path} is incomplete or no checkpoint ({reason})'


def _allowed_globals() -> list[Callable | tuple[Callable, str]]:
    """What MMEngine's runner writes beside tensors, by the name in the file."""
    core = getattr(np, '_core', None) or np.core  # renamed in numpy 2
    allowed: list[Callable | tuple[Callable, str]] = [
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        (slice, 'builtins.slice'),
        (_history_method, 'builtins.getattr'),
    ]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((core.multiarray._reconstruct, f'{module}._reconstruct'))
        allowed.append((core.multiarray.scalar, f'{module}.scalar'))
    for code in '?bBhHiIlLqQefd':
        kind = type(np.dtype(code))
        allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:  # plain weights need no host
        return allowed
    allowed.append((HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'))
    return allowed


def _history_method(owner: object, name: str) -> Callable:
    """Stand in for ``getattr``: a log history names four of its own methods so.

    The true ``getattr`` would let a file reach anything.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)
