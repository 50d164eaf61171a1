"""What a pickled file may hold besides tensors, and TorchScript archives as data.

Everything that is allowed only builds values. Where a class of another package stands
in a file and its values are all that counts, a plain stand-in is built instead, so that
the package need not be installed and none of its code runs.
"""

from __future__ import annotations

import argparse
import datetime
import pickle
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medic_mm.errors import FileError

#: What zipfile raises for a file that is not as it was written.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError)

#: The training log of mmengine, which is allowed where mmengine is installed.
HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'

_SETTINGS = (
    'mmengine.config.config.ConfigDict',
    'mmcv.utils.config.ConfigDict',
    'yacs.config.CfgNode',
    'easydict.EasyDict',
    'addict.addict.Dict',
)
_DATES = ('datetime', 'date', 'time', 'timedelta', 'timezone')


def allowed_globals() -> list[Callable | tuple[Callable, str]]:
    """For ``torch.serialization.safe_globals``, on top of what torch allows itself.

    The scripts of the field write these next to the weights: their arguments, paths of
    other checkpoints, versions, dates, settings.
    """
    core: Any = getattr(np, '_core', None) or np.core  # renamed in numpy 2
    allowed: dict[str, Callable] = {
        'argparse.Namespace': argparse.Namespace,
        'types.SimpleNamespace': SimpleNamespace,
        # str with a comparison of versions, which nothing here needs
        'torch.torch_version.TorchVersion': str,
        **{f'datetime.{name}': getattr(datetime, name) for name in _DATES},
        # the basic ones are what a defaultdict makes of a key that it lacks
        **{
            f'builtins.{kind.__name__}': kind
            for kind in (frozenset, range, slice, dict, list, int, float, str)
        },
        **dict.fromkeys(_SETTINGS, _Settings),
        'collections.defaultdict': _plain_dict,
        'collections.deque': _plain_list,
        'builtins.getattr': _history_method,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for module in ('pathlib', 'pathlib._local'):
        # a path of another system cannot be made here, its pure form can
        for kind in (PurePosixPath, PureWindowsPath):
            name = kind.__name__
            allowed[f'{module}.{name}'] = kind
            allowed[f'{module}.{name.removeprefix("Pure")}'] = kind
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed[f'{module}._reconstruct'] = core.multiarray._reconstruct
        allowed[f'{module}.scalar'] = core.multiarray.scalar
    for code in '?bBhHiIlLqQefdUS':
        number = type(np.dtype(code))
        allowed[f'{number.__module__}.{number.__qualname__}'] = number
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:  # plain weights do not need mmengine
        pass
    else:
        allowed[HISTORY] = HistoryBuffer
    return [(kind, name) for name, kind in allowed.items()]


class _Settings:
    """Stand in for a package's dictionary of settings: an OrderedDict."""

    def __new__(cls, *items: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict(*items)


def _plain_dict(*_: Any) -> dict:
    """Stand in for ``defaultdict``, whose keys torch's reader does not fill."""
    return {}


def _plain_list(*_: Any) -> list:
    """Stand in for ``deque``, which it does not fill either."""
    return []


def _history_method(owner: object, name: str) -> Callable:
    """Stand in for ``getattr``: mmengine's log names four of its own methods so.

    The true ``getattr`` would let a file reach anything.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


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
    """Read the weights of an archive of ``torch.jit.save`` onto the CPU.

    ``torch.jit.load`` compiles what the archive carries and runs its ``__setstate__``
    methods. Here only its list of modules is read, with stand-ins for their classes.

    Raises:
        FileError: for an archive that is damaged, or holds more than modules, tensors
            and plain values.
    """
    unfit = (pickle.UnpicklingError, AttributeError, IndexError, TypeError)
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _TorchScriptReader(archive)
            top = reader.load()
        weights = TorchScript(_walk(top, '', reader.declared))
    except MemoryError:
        raise
    except (*DAMAGED, *unfit) as error:
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


class _TorchScriptReader(pickle.Unpickler):
    """Unpickle ``data.pkl``, where nothing but the names below is known."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = archive.namelist()
        root = next(n for n in names if n.endswith('/constants.pkl')).split('/')[0]
        self.archive, self.root = archive, root
        self.kinds: set[str] = set()
        self.declared = _declared_tensors(archive, f'{root}/code/')
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


def _declared_tensors(archive: zipfile.ZipFile, start: str) -> dict[str, set[str]]:
    """Names of the parameters and buffers of each class; other tensors are left."""
    declared = {}
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
