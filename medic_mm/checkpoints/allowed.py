"""What a checkpoint may hold besides tensors: the one list, by the names in the file.

Everything here only builds values. Where a class of another package stands in a file
and its values are all that counts, a plain stand-in is built instead, so that the
package need not be installed and none of its code runs.
"""

from __future__ import annotations

import argparse
import datetime
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any

import numpy as np

Allowed = Callable | tuple[Callable, str]

#: The scripts of the field write these next to the weights: their arguments, paths of
#: other checkpoints, versions, dates, settings.
_VALUES: tuple[tuple[Callable, str], ...] = (
    (argparse.Namespace, 'argparse.Namespace'),
    (SimpleNamespace, 'types.SimpleNamespace'),
    (frozenset, 'builtins.frozenset'),
    (range, 'builtins.range'),
    (slice, 'builtins.slice'),
    # str with a comparison of versions, which nothing here needs
    (str, 'torch.torch_version.TorchVersion'),
    *(
        (kind, f'datetime.{kind.__name__}')
        for kind in (
            datetime.datetime,
            datetime.date,
            datetime.time,
            datetime.timedelta,
            datetime.timezone,
        )
    ),
    # a path of another system cannot be made here, its pure form can
    *(
        (kind, f'{module}.{name}')
        for module in ('pathlib', 'pathlib._local')
        for kind, name in (
            (PurePosixPath, 'PosixPath'),
            (PurePosixPath, 'PurePosixPath'),
            (PureWindowsPath, 'WindowsPath'),
            (PureWindowsPath, 'PureWindowsPath'),
        )
    ),
    # what a defaultdict makes of a key that it lacks
    *((kind, f'builtins.{kind.__name__}') for kind in (dict, list, int, float, str)),
)

_SETTINGS = (
    'mmengine.config.config.ConfigDict',
    'mmcv.utils.config.ConfigDict',
    'yacs.config.CfgNode',
    'easydict.EasyDict',
    'addict.addict.Dict',
)

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


def allowed_globals() -> list[Allowed]:
    """For ``torch.serialization.safe_globals``, on top of what torch allows itself."""
    core: Any = getattr(np, '_core', None) or np.core  # renamed in numpy 2
    allowed: list[Allowed] = [
        *_VALUES,
        *((_Settings, name) for name in _SETTINGS),
        (_plain_dict, 'collections.defaultdict'),
        (_plain_list, 'collections.deque'),
        (_history_method, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((core.multiarray._reconstruct, f'{module}._reconstruct'))
        allowed.append((core.multiarray.scalar, f'{module}.scalar'))
    for code in '?bBhHiIlLqQefdUS':
        kind = type(np.dtype(code))
        allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:  # plain weights do not need MMEngine
        return allowed
    allowed.append((HistoryBuffer, HISTORY))
    return allowed


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
    """Stand in for ``getattr``: MMEngine's log names four of its own methods so.

    The true ``getattr`` would let a file reach anything.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)
