"""Names in a config: all of a file's, and those that options set."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.settings.places import (
    COMPONENT_KEYS,
    Settings,
    registry_of,
    settings_at,
    settings_of,
    top_level_settings,
    walk,
)

# A shorter value stands at several places by chance.
_TELLING_LENGTH = 4


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that would change nothing or that no component accepts.

    Where a dict stands for a component (it has ``type``, or the options give it one),
    the signatures of its class decide; where mmengine reads the dict itself, its known
    keys; elsewhere the keys that the dict has already.

    Args:
        cfg: The config that the options are to be merged into.
        options: Dotted keys to values.

    Raises:
        UserError: names each wrong key and the nearest valid one.
    """
    keys = dict(_flatten(options))
    problems = [_place_problem(cfg, key) or _variable_problem(cfg, key) for key in keys]
    if not any(problems):
        merged = Config(copy.deepcopy(dict(cfg.items())))
        merged.merge_from_dict(dict(options))
        problems += name_problems(merged, cfg)
    if any(problems):
        raise UserError('\n'.join(dict.fromkeys(p for p in problems if p)))


def name_problems(cfg: Config, before: Config | None = None) -> Iterator[str]:
    """A sentence for each name in a config that nothing reads.

    Other names are the user's own at the top level, and in dicts whose component may
    hand its ``**kwargs`` on: there, those close to a name that is read are wrong.

    Args:
        cfg: The config.
        before: The same before options were merged, whose names are right.
    """
    old = {} if before is None else {(): before, **dict(read_places(before))}
    top = top_level_settings(cfg.get('runner_type'))
    nodes = {(): cfg, **dict(read_places(cfg))}
    scope = cfg.get('default_scope') or 'mmengine'
    for place, node in nodes.items():
        if place and not isinstance(node, Mapping):
            continue
        name, was = '.'.join(place), old.get(place)
        type_ = node.get('type') if place else None
        settings = settings_at(place, node, scope) if place else top
        if settings is None and type_ is None:
            settings = _names_of_default(place, nodes, was, scope)
        elif settings is None and before is None:
            yield from _type_problem(name, type_, place)
        if settings is None:
            continue
        same = isinstance(was, Mapping | Config) and (
            not place or was.get('type') == type_
        )
        right = {*settings.parameters, *(was if same else ())}
        loose = settings.loose or (before is None and not place)
        for key, value in node.items():
            hook = name == 'default_hooks' and isinstance(value, Mapping)
            own = loose or (hook and 'type' in value)
            near = _misspelt(key, settings.parameters, short=before is not None)
            if key not in right and (near or not own):
                yield _name_problem(cfg, name, key, right)


def read_places(cfg: Config) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All places below the keys that the Runner reads, with their values."""
    read = top_level_settings(cfg.get('runner_type')).parameters
    for top in sorted(set(read) & set(cfg.keys())):
        yield from walk(cfg[top], (top,))


def _misspelt(key: str, names: Iterable[str], short: bool = False) -> str | None:
    """The name that differs from ``key`` in two letters at most, or None.

    A name with something behind it (``model_a``, ``model2``) is another name;
    ``short`` takes the first words of a name for it, too.
    """
    for name in difflib.get_close_matches(key, names, n=3, cutoff=0.7):
        steps = difflib.SequenceMatcher(None, key, name, autojunk=False).get_opcodes()
        wrong = [max(b - a, d - c) for what, a, b, c, d in steps if what != 'equal']
        added = key.removeprefix(name) if key.startswith(name) else ''
        if added.startswith('_') or added.isdigit():
            return None
        most = 2 if sorted(key) == sorted(name) else min(2, len(name) // 3)
        if sum(wrong) <= most or (short and name.startswith(f'{key}_')):
            return name
    return None


def _names_of_default(
    place: tuple, nodes: Mapping, was: Any, scope: str
) -> Settings | None:
    """Names in a dict that is an argument of the component above: its default's."""
    above = nodes[place[:-1]]
    settings = isinstance(above, Mapping) and settings_at(place[:-1], above, scope)
    parameter = settings and settings.parameters.get(place[-1])
    default = getattr(parameter, 'default', None)
    names = list(default) if isinstance(default, Mapping) else []
    if not names and not was:
        return None
    return settings_of(names=' '.join([*names, COMPONENT_KEYS]), loose=not was)


def _flatten(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _place_problem(cfg: Config, option: str) -> str | None:
    """Where an option goes through what has no settings, or not this element."""
    node: Any = cfg
    keys = option.split('.')
    for depth, key in enumerate(keys):
        name = '.'.join(keys[:depth])
        if isinstance(node, tuple):
            return f'{name} is a tuple, which can only be set as a whole'
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                places = f': write {name}.0 to {name}.{len(node) - 1}' if node else ''
                return (
                    f'{name} is a list of {len(node)}, so {key!r} does not name one of '
                    f'its elements{places}'
                )
            node = node[int(key)]
        elif node is not None and not isinstance(node, Mapping | Config):
            return f'{name} is {node!r}, which has no settings: {option} cannot be set'
        elif key.isdigit() and not node:
            return f'{name} is not set in the config, so it has no element {key}'
        else:
            node = (node or {}).get(key)
    return None


def _type_problem(name: str, type_: Any, place: tuple) -> Iterator[str]:
    """Only a misspelt type: others may be of packages that come with the run."""
    registry, (scope, _, key) = registry_of(place), str(type_).rpartition('.')
    scoped = [registry, *registry.children.values()]
    known = [name for one in scoped for name in one.module_dict]
    installed = not scope or scope in registry.children
    if installed and key not in known and (near := _misspelt(key, known)):
        yield f'{name}.type is {type_!r}, which does not exist: did you mean {near!r}?'


def _name_problem(cfg: Config, name: str, key: str, taken: set[str]) -> str:
    problem = f'{name or "the config"} has no setting {key!r}'
    if near := difflib.get_close_matches(key, taken, n=1):
        return f'{problem}: did you mean {near[0]!r}?'
    ends = ['.'.join(place) for place, _ in read_places(cfg) if place[-1] == key]
    places = [place for place in ends if '.' in place and place != f'{name}.{key}']
    same_top = [x for x in places if x.startswith(name.partition('.')[0] + '.')]
    # a name given high up may be meant anywhere, a deep one was meant there
    elsewhere = same_top or ([] if '.' in name else places)
    if elsewhere:
        return f'{problem}: did you mean {" or ".join(elsewhere[:2])}?'
    shown = (taken if name else set(cfg.keys())) - {*COMPONENT_KEYS.split(), key}
    return f'{problem}; it takes: {", ".join(sorted(shown))}'


def _variable_problem(cfg: Config, option: str) -> str | None:
    """Whether the option sets a variable that was used up when the file was read.

    Such a variable is found by its value: it stands where the Runner reads it, too.
    """
    variable, dot, rest = option.partition('.')
    read = top_level_settings(cfg.get('runner_type')).parameters
    if variable in read or variable not in cfg:
        return None
    value = cfg[variable]
    telling = hasattr(value, '__len__') and len(value) >= _TELLING_LENGTH
    uses = [
        '.'.join(place) + dot + rest
        for place, found in read_places(cfg)
        if type(found) is type(value) and found == value
        if telling or place[-1] == variable
    ]
    if not uses:
        return None
    more = len(uses) > 1 or variable == 'data_root'
    roots = all(use.endswith('.data_root') for use in uses) and more
    return (
        f'{variable} is a variable of the config file that was already put in its '
        f'places when the file was read, so setting it changes nothing: set '
        + ', '.join(uses[:4])
        + ('; --data-root FOLDER sets all of them' if roots else '')
    )
