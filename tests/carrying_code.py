"""Files that carry code, of each kind: loading one unsafely makes its sentinel."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Call:
    """Unpickling calls ``function(*arguments)``."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


_OS = Call(import_module, 'os')


def _torchscript(content: dict, path: Path, sentinel: Path) -> None:
    """A module of torch.jit, which can write files when it is run."""

    class Writer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.script(Writer()).save(str(path))


def _saved(bad: Callable[[Path], Any], **options: Any) -> Callable:
    def write(content: dict, path: Path, sentinel: Path) -> None:
        torch.save({**content, 'extra': bad(sentinel)}, path, **options)

    return write


def _plain_pickle(content: dict, path: Path, sentinel: Path) -> None:
    call = Call(os.system, f'touch {sentinel}')
    path.write_bytes(pickle.dumps({'meta': content['meta'], 'extra': call}))


def _objects(sentinel: Path) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = Call(os.system, f'touch {sentinel}')
    return array


def _in_config_text(content: dict, path: Path, sentinel: Path) -> None:
    """What MMEngine runs as Python on resuming: not refused, but not run."""
    text = f'import os\nos.system("touch {sentinel}")\ngpu_ids = []'
    torch.save({**content, 'meta': {**content['meta'], 'config': text}}, path)


#: Kind to a function that writes a whole checkpoint with the payload in it.
REFUSED: dict[str, Callable[[dict, Path, Path], None]] = {
    'os.system': _saved(lambda x: Call(os.system, f'touch {x}')),
    'eval': _saved(lambda x: Call(eval, f'open({str(x)!r}, "w").close()')),
    'method of a module': _saved(
        lambda x: Call(methodcaller('system', f'touch {x}'), _OS)
    ),
    'getattr': _saved(lambda x: Call(getattr, _OS, 'system')),
    'array of objects': _saved(_objects),
    'legacy format': _saved(
        lambda x: Call(os.system, f'touch {x}'), _use_new_zipfile_serialization=False
    ),
    'plain pickle': _plain_pickle,
    'torch.jit': _torchscript,
}
NOT_RUN = {'config text': _in_config_text}
