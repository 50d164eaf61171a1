"""Values in a config that cannot be meant, found before anything is built."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.settings.options import read_places
from medic_mm.settings.places import Settings, settings_at, walk

# Settings of OpenMMLab and torch that would fail late, or not at all.
_RANGES: dict[str, dict[str, Any]] = {
    'accumulative_counts': dict(low=1, integer=True),
    'base_batch_size': dict(low=1),
    'batch_size': dict(low=1, integer=True),
    'clip_value': dict(above=0),
    'eta_min': dict(low=0),
    'lr': dict(low=0),
    'max_epochs': dict(low=1, integer=True),
    'max_iters': dict(low=1, integer=True),
    'max_norm': dict(above=0),
    'num_workers': dict(low=0, integer=True),
    'prefetch_factor': dict(low=1, integer=True),
    'seed': dict(low=0, high=2**32 - 1, integer=True),
    'start_factor': dict(above=0, high=1),
    'T_max': dict(above=0),
    'val_interval': dict(low=1, integer=True),
    'weight_decay': dict(low=0),
}
_NUMBER, _TEXT, _TRUTH = 'a number', 'a text', 'True or False'
_WORDS = {'int': _NUMBER, 'float': _NUMBER, 'str': _TEXT, 'bool': _TRUTH}
_NUMBER_BY_NAME = re.compile(r'(?i:dict|mapping)\[str, (int|float|int \| float)\]')
# Arguments of OpenMMLab that take more than they are annotated with.
_TAKE_MORE = {'bias', 'loss_scale'}


def value_problems(cfg: Config) -> Iterator[str]:
    """A sentence for each value of a config that cannot be meant.

    NaN anywhere; infinity, but for an argument whose documentation speaks of it; a
    text, a list or a dictionary where the signature has a number, and the like; numbers
    out of range among settings of mmengine and torch.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    known: dict[tuple, Settings] = {}
    for place, node in read_places(cfg):
        settings = isinstance(node, Mapping) and settings_at(place, node, scope)
        if not settings:
            continue
        known[place] = settings
        for key, value in node.items():
            yield from _type_problem('.'.join((*place, key)), value, settings, key)
            if key in _RANGES and value is not None:
                yield from _range_problem('.'.join(place), key, value)
    yield from _incomplete_loops(cfg)
    for key in cfg:
        for place, value in walk(cfg[key], (key,)):
            if isinstance(value, float) and not math.isfinite(value):
                if math.isinf(value) and _may_be_infinite(place, known):
                    continue
                yield f'{".".join(place)} is {value}: it must be a finite number'


def _incomplete_loops(cfg: Config) -> Iterator[str]:
    """Each loop has its settings all or none."""
    for title, loop, last in (
        ('training', 'train', 'optim_wrapper'),
        ('validation', 'val', 'val_evaluator'),
        ('test', 'test', 'test_evaluator'),
    ):
        names = [f'{loop}_cfg', f'{loop}_dataloader', last]
        missing = [name for name in names if cfg.get(name) is None]
        if missing and len(missing) < len(names):
            there = [name for name in names if name not in missing]
            yield (
                f'no {title} loop: {" and ".join(missing)} must be set together with '
                f'{" and ".join(there)}'
            )


def _range_problem(owner: str, key: str, value: Any) -> Iterator[str]:
    try:
        require_number(owner, key, value, **_RANGES[key])
    except UserError as error:
        must = str(error).partition(f' of {owner} ')[2]
        hint = _hint(f'{owner}.{key}', value, _NUMBER)
        yield f'{owner}.{key} is {value!r} but {must}{hint}'


def _type_problem(name: str, value: Any, settings: Settings, key: str) -> Iterator[str]:
    """Text, lists and dictionaries where the signature has something else."""
    parameter = settings.parameters.get(key)
    if parameter is None or value is None or key in _RANGES or key in _TAKE_MORE:
        return
    text = parameter.annotation
    if not isinstance(text, str):
        text = inspect.formatannotation(text)
    wanted, found = _wanted(text, parameter), _kind(value)
    wrong = found != wanted and {wanted, found} != {_NUMBER, _TRUTH}
    # OpenMMLab says int for what may be a list
    ours = all(c.__module__.startswith('medic_mm.') for c in settings.components)
    if wanted and found and wrong and (wanted != _NUMBER or found != 'a list' or ours):
        hint = _hint(name, value, wanted)
        yield f'{name} is {value!r}, {found}, where {wanted} is wanted{hint}'
    if _NUMBER_BY_NAME.search(text) and isinstance(value, Mapping):
        for inner, number in value.items():
            if _kind(number) != _NUMBER:
                hint = _hint(f'{name}.{inner}', number, _NUMBER)
                yield f'{name}.{inner} is {number!r}, where a number is wanted{hint}'


def _wanted(annotation: str, parameter: inspect.Parameter) -> str | None:
    """The one kind of value that a parameter takes; None where it may be several."""
    words = re.findall(r'\b(?!Optional|Union|None|typing)\w+', annotation)
    kinds = {_WORDS.get(word) for word in words}
    if parameter.annotation is not parameter.empty:
        return kinds.pop() if len(kinds) == 1 else None
    return _NUMBER if _kind(parameter.default) == _NUMBER else None


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, bool):
        return _TRUTH
    if isinstance(value, int | float):
        return _NUMBER
    if isinstance(value, Mapping):
        return 'a dictionary'
    return 'a list' if isinstance(value, list | tuple) else None


def _hint(name: str, value: Any, wanted: str) -> str:
    if wanted == _TEXT:
        return f"""; on the command line, a text in quotes stays one: '{name}="..."'"""
    if wanted == _NUMBER and isinstance(value, list) and len(value) == 2:
        return f': decimals are written with a point, {value[0]}.{value[1]}'
    return ''


def _may_be_infinite(place: tuple, known: Mapping[tuple, Settings]) -> bool:
    """Whether the documentation of the argument at a place speaks of infinity."""
    for depth in range(len(place) - 1, 0, -1):
        settings = known.get(place[:depth])
        for component in settings.components if settings else ():
            docs = [c.__doc__ or '' for c in getattr(component, '__mro__', [component])]
            entry = rf'^\s*{re.escape(place[depth])}\b.*?(?=^\s*\w+\s*[(:].*|\Z)'
            for text in docs:
                found = re.search(entry, text, re.MULTILINE | re.DOTALL)
                if found and re.search(r'\binf(inity|inite)?\b', found.group()):
                    return True
        if settings:
            return False
    return False
