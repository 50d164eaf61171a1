"""``--cfg-options``: parsing, and refusal of keys that no component accepts."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from medic_mm.apis.config_places import (
    COMPONENT_KEYS,
    settings_at,
    top_level_settings,
)
from medic_mm.errors import UserError

_MISSING = object()
# A shorter value stands at several places by chance.
_TELLING_LENGTH = 4


class OptionAction(DictAction):
    """The host's ``key=value`` parsing with two gaps closed.

    A word without ``=`` is a usage error, and blanks in a single value are kept (the
    host drops them, which breaks paths).
    """

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for pair in values or []:
            if '=' not in pair:
                parser.error(f'{option_string} takes key=value, not {pair!r}')
        super().__call__(parser, namespace, values, option_string)
        options = getattr(namespace, self.dest)
        for pair in values or []:
            key, value = pair.split('=', maxsplit=1)
            if isinstance(options[key], str):
                options[key] = value.strip('\'"')


def check_options(cfg: Config, options: dict[str, Any]) -> None:
    """Refuse options that would change nothing or that no component accepts.

    A key is looked up step by step in the config before merging. Where a dict stands
    for a component (it has ``type``, or the options give it one), the signatures of
    its class decide; where mmengine reads the dict itself, its known keys; elsewhere
    the keys that the dict has already.

    Args:
        cfg: The config that the options are to be merged into.
        options: Dotted keys to values.

    Raises:
        UserError: names each wrong key and the nearest valid one.
    """
    flat = dict(_flatten(options))
    scope = flat.get('default_scope', cfg.get('default_scope')) or 'mmengine'
    problems = [_problem(cfg, key.split('.'), flat, scope) for key in flat]
    found = dict.fromkeys(problem for problem in problems if problem is not None)
    if found:
        raise UserError('\n'.join(found))


def _flatten(options: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _problem(
    cfg: Config, keys: list[str], options: dict[str, Any], scope: str
) -> str | None:
    """What is wrong with one option, as a sentence; None where nothing is."""
    node: Any = cfg
    parent: Any = None
    for depth, key in enumerate(keys):
        place = keys[:depth]
        name = '.'.join(place)
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node) or isinstance(node, tuple):
                return _index_problem(name, node, key)
            parent, node = node, node[int(key)]
            continue
        if node is not None and node is not _MISSING and not hasattr(node, 'keys'):
            return (
                f'{name} is {node!r}, which has no settings: {".".join(keys)} '
                'cannot be set'
            )
        if key.isdigit() and not hasattr(node, 'keys') and depth:
            return f'{name} is not set in the config, so it has no element {key}'
        taken = _names_taken(cfg, place, node, parent, options, scope)
        if taken is not None and key not in taken:
            return _name_problem(cfg, name, key, taken)
        inner = hasattr(node, 'keys') and key in node
        parent, node = node, node[key] if inner else _MISSING
    return _variable_problem(cfg, keys)


def _names_taken(
    cfg: Config,
    place: list[str],
    node: Any,
    parent: Any,
    options: dict[str, Any],
    scope: str,
) -> set[str] | None:
    """Names that may be set in the dict at ``place``; None where any may."""
    if not place:
        top = top_level_settings(cfg.get('runner_type'))
        return None if top.any_name else set(top.names) | set(cfg.keys())
    name = '.'.join(place)
    is_dict = hasattr(node, 'keys') and not options.get(f'{name}._delete_')
    present = dict(node) if is_dict else {}
    set_here = dict(_set_in(name, options))
    type_ = set_here.get('type', present.get('type'))
    settings = settings_at(place, {**present, **set_here}, type_, scope)
    if settings is not None:
        if settings.any_name:
            return None
        # a component of another type has no use for the keys of the old one
        kept = present if type_ == present.get('type') else {}
        names = set(settings.names) | set(kept)
        # default_hooks and the like may gain a component of any name
        return names | set(_given_types(name, options)) if len(place) == 1 else names
    if type_ is not None:
        return None
    return _names_of_plain_dict(place, present, parent, scope)


def _names_of_plain_dict(
    place: list[str], present: dict, parent: Any, scope: str
) -> set[str] | None:
    """Names in a dict that is an argument of the component above it."""
    names = set(present)
    if hasattr(parent, 'keys') and parent.get('type') is not None:
        above = settings_at(place[:-1], dict(parent), parent['type'], scope)
        default = None if above is None else above.defaults.get(place[-1])
        if isinstance(default, dict):
            names |= set(default)
    return names | COMPONENT_KEYS if names else None


def _set_in(name: str, options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the options set directly in the dict at ``name``."""
    for key, value in options.items():
        place, _, last = key.rpartition('.')
        if place == name:
            yield last, value


def _given_types(name: str, options: dict[str, Any]) -> Iterator[str]:
    """Names of dicts that the options add under ``name`` together with a ``type``."""
    for key in options:
        place, _, last = key.rpartition('.')
        if last == 'type' and place.rpartition('.')[0] == name:
            yield place.rpartition('.')[2]


def _index_problem(name: str, node: Sequence, key: str) -> str:
    if isinstance(node, tuple):
        return f'{name} is a tuple, which can only be set as a whole'
    last = len(node) - 1
    return f'{name} is a list of {len(node)}, so {key!r} does not name one of its ' + (
        f'elements: write {name}.0 to {name}.{last}' if node else 'elements'
    )


def _name_problem(cfg: Config, name: str, key: str, taken: set[str]) -> str:
    problem = f'{name or "the config"} has no setting {key!r}'
    near = difflib.get_close_matches(key, taken, n=1)
    if near:
        return f'{problem}: did you mean {near[0]!r}?'
    top = name.partition('.')[0]
    places = [place for place, _ in _read_places(cfg) if place.endswith(f'.{key}')]
    beside = [place for place in places if place.startswith(f'{top}.')]
    # a name given high up may be meant anywhere, a deep one was meant there
    elsewhere = beside or ([] if '.' in name else places)
    if elsewhere:
        return f'{problem}: did you mean {" or ".join(elsewhere[:2])}?'
    shown = (taken if name else set(cfg.keys())) - COMPONENT_KEYS
    return f'{problem}; it takes: {", ".join(sorted(shown))}'


def _variable_problem(cfg: Config, keys: list[str]) -> str | None:
    """Whether the option sets a variable that was used up when the file was read.

    Such a variable is found by its value: it stands where the Runner reads it, too.
    """
    variable = keys[0]
    read = top_level_settings(cfg.get('runner_type')).names
    value = cfg.get(variable, _MISSING)
    telling = hasattr(value, '__len__') and len(value) >= _TELLING_LENGTH
    if variable in read or value is _MISSING:
        return None
    uses = [
        place
        for place, found in _read_places(cfg)
        if type(found) is type(value)
        and found == value
        and (telling or place.endswith(f'.{variable}'))
    ]
    if not uses:
        return None
    rest = ''.join(f'.{key}' for key in keys[1:])
    return (
        f'{variable} is a variable of the config file that was already put in its '
        f'places when the file was read, so setting it changes nothing: set '
        + ', '.join(f'{use}{rest}' for use in uses[:4])
    )


def _read_places(cfg: Config) -> Iterator[tuple[str, Any]]:
    """All places below the keys that the Runner reads, with their values."""
    read = top_level_settings(cfg.get('runner_type')).names
    for top in sorted(read & set(cfg.keys())):
        yield from _walk(cfg[top], top)


def _walk(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    yield place, node
    if hasattr(node, 'keys'):
        for key in node:
            yield from _walk(node[key], f'{place}.{key}')
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, f'{place}.{index}')
