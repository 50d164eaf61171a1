"""Errors while a config's components are built: at which of its places."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.settings.options import read_places

# Functions of mmengine that read a part of a config without a registry.
_MODULES = (
    'mmengine.model.weight_init',
    'mmengine.optim.optimizer.builder',
    'mmengine.runner.runner',
)
_READERS = ('build_', 'initialize', 'set_randomness', 'setup_env', 'wrap_model')


@contextlib.contextmanager
def naming_places() -> Iterator[None]:
    """Name the component whose construction fails, as ``model.head (MEDiCHead)``.

    A :class:`UserError` gets its place in front of its sentence. Before any other error
    the line ``while building model.head (MEDiCHead)`` goes to the error output.
    """
    try:
        yield
    except Exception as error:
        place = place_of_failure(error)
        if place and not getattr(error, 'is_placed', False):
            if isinstance(error, UserError):
                error.args = (f'{place}: {error}', *error.args[1:])
            else:
                print(f'while building {place}:', file=sys.stderr, flush=True)
            error.is_placed = True  # type: ignore[attr-defined]
        raise


def place_of_failure(error: BaseException) -> str | None:
    """The place of the component whose construction raised, with its type; or None.

    mmengine's functions that build are in the traceback, each with the dictionary that
    it builds from. These are looked up in the config, which is there as well, each
    below the one before.
    """
    frames = list(_frames(error))
    configs = [v for f in frames for v in f.f_locals.values() if isinstance(v, Config)]
    builders = [frame for frame in frames if _builds(frame)]
    if not configs or not builders:
        return None
    nodes = {
        place: node
        for place, node in read_places(configs[0])
        if node and isinstance(node, Mapping)
    }
    found: tuple[str, ...] = ()
    for frame in builders:
        given = [v for v in frame.f_locals.values() if isinstance(v, Mapping) and v]
        below = {k: v for k, v in nodes.items() if k[: len(found)] == found}
        # a loop builds its data loader, which stands elsewhere
        found = _best(below, given) or _best(nodes, given) or found
    found = found or _owner(nodes, frames)
    if not found:
        return None
    type_ = nodes[found].get('type')
    shown = type_ if isinstance(type_, str) else getattr(type_, '__name__', '')
    return '.'.join(found) + (f' ({shown})' if shown else '')


def _best(nodes: Mapping[tuple, Mapping], given: list[Mapping]) -> tuple:
    """The place of the dictionary that is most like one of those given, or ()."""
    fits = {
        place: max((_shared(node, value) for value in given), default=0)
        for place, node in nodes.items()
    }
    best = max(fits, key=lambda place: fits[place], default=())
    return best if fits.get(best, 0) > 0 else ()


def _owner(nodes: Mapping[tuple, Mapping], frames: list[FrameType]) -> tuple:
    """The place of a component that builds another one later, such as a hook."""
    for frame in reversed(frames):
        kind = type(frame.f_locals.get('self')).__name__
        for place, node in nodes.items():
            if type_name(node) == kind:
                return place
    return ()


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
    # mmengine raises errors of hooks anew
    if error.__context__ is not None:
        yield from _frames(error.__context__)


def _builds(frame: FrameType) -> bool:
    module, name = frame.f_globals.get('__name__', ''), frame.f_code.co_name
    of_runner = module in _MODULES and name.startswith(_READERS)
    of_registry = module.startswith('mmengine.registry') and name.endswith('from_cfg')
    return (of_runner or of_registry) and name != 'build_runner_from_cfg'


def _shared(node: Mapping, value: Mapping) -> int:
    """How many settings two dictionaries share; -1 where they differ in one.

    Components are taken out of a dictionary, changed or added before it is built.
    """
    if node.get('type') != value.get('type'):
        return -1
    both = [key for key in node if key in value]
    plain = [key for key in both if not isinstance(node[key], Mapping | list)]
    if any(not _equal(node[key], value[key]) for key in plain):
        return -1
    return len(both) + sum(_equal(node[key], value[key]) for key in both)


def _equal(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))
