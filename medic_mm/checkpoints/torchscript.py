"""Read the weights of a TorchScript archive without running its program.

``torch.jit.load`` compiles what the archive carries and runs its ``__setstate__``
methods. Here only its list of modules is read, with stand-ins for their classes.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medic_mm.checkpoints.archive import DAMAGED
from medic_mm.errors import FileError

_DTYPES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
_CLASS = re.compile(
    r'^class (\w+)\(Module\):\n  __parameters__ = \[(.*?)\]\n  __buffers__ = \[(.*?)\]',
    re.MULTILINE | re.DOTALL,
)


class TorchScript(dict[str, Tensor]):
    """Parameters and buffers by name, as ``state_dict()`` has them.

    Attributes:
        kinds: Names of the modules' classes, such as ``'QuickGELU'``.
    """

    kinds: frozenset[str] = frozenset()


def read_torchscript(path: Path) -> TorchScript:
    """Read an archive of ``torch.jit.save`` onto the CPU.

    Args:
        path: The archive; its checksums are those of
            :func:`~medic_mm.checkpoints.archive.check_archive`.

    Raises:
        FileError: for an archive that is damaged, or holds more than modules, tensors
            and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _Reader(archive)
            top = reader.load()
        weights = TorchScript(_walk(top, '', reader.declared))
    except MemoryError:
        raise
    except (
        *DAMAGED,
        pickle.UnpicklingError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise FileError(
            f'{path} looks like a TorchScript archive but cannot be read '
            f'({type(error).__name__}: {error}): it may be torn; fetch it again'
        ) from error
    weights.kinds = frozenset(reader.kinds)
    return weights


class _Module:
    """Stand in for a module: its attributes by name."""

    kind = ''
    state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Unpickle ``data.pkl``, where nothing but the names below is known."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = archive.namelist()
        root = next(n for n in names if n.endswith('/constants.pkl')).split('/')[0]
        self.archive, self.root = archive, root
        self.kinds: set[str] = set()
        self.declared = _declared_tensors(archive, root)
        super().__init__(archive.open(f'{root}/data.pkl'))

    def find_class(self, module: str, name: str) -> Any:
        if module.split('.')[0] == '__torch__':
            self.kinds.add(name)
            # a class of its own each time: a file can set attributes of what it names
            return type('Module', (_Module,), {'kind': f'{module}.{name}'})
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        known: dict[str, Callable] = {
            'torch._utils._rebuild_tensor_v2': lambda flat, offset, size, stride, *_: (
                torch.as_strided(flat, size, stride, offset)
            ),
            'torch.jit._pickle.restore_type_tag': lambda value, _: value,
            'collections.OrderedDict': OrderedDict,
            **{
                f'torch.jit._pickle.build_{kind}list': lambda values: values
                for kind in ('int', 'double', 'bool', 'tensor')
            },
        }
        if (function := known.get(f'{module}.{name}')) is None:
            raise pickle.UnpicklingError(f'it carries {module}.{name}')
        return function

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = bytearray(self.archive.read(f'{self.root}/data/{key}'))
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0).to(dtype)
        if len(flat) != count:
            raise pickle.UnpicklingError(
                f'data/{key} has {len(flat)} of {count} numbers'
            )
        return flat


def _declared_tensors(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Names of the parameters and buffers of each class; other tensors are none."""
    declared = {}
    start = f'{root}/code/'
    for entry in archive.namelist():
        if entry.startswith(start) and entry.endswith('.py'):
            module = entry[len(start) : -len('.py')].replace('/', '.')
            text = archive.read(entry).decode('utf-8', 'replace')
            for name, *lists in _CLASS.findall(text):
                found = re.findall(r'"([^"]*)"', ' '.join(lists))
                declared[f'{module}.{name}'] = set(found)
    return declared


def _walk(
    module: Any, prefix: str, declared: dict[str, set[str]]
) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, _Module):
        raise TypeError(f'{prefix or "the whole"} is not a module')
    wanted = declared.get(module.kind)
    for name, value in module.state.items():
        if isinstance(value, Tensor) and (wanted is None or name in wanted):
            yield f'{prefix}{name}', value
        elif isinstance(value, _Module):
            yield from _walk(value, f'{prefix}{name}.', declared)
