"""What a run's settings change against the config that it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

#: Where the one side has no such setting.
ABSENT = '(absent)'
# what the tools write into every config by themselves
_FILLED_IN = (
    *('work_dir', 'launcher', 'resume', 'load_from'),
    *('pin_memory', 'persistent_workers', 'collate_fn', 'cudnn_benchmark'),
)


@dataclass(frozen=True)
class Change:
    """One setting that differs.

    Attributes:
        key: Its place, such as ``'model.head.weights.cls'``.
        base: Its value in the base config, as text.
        run: Its value in the run, as text.
    """

    key: str
    base: str
    run: str

    @property
    def filled_in(self) -> bool:
        """Whether the tools set it by themselves, as they do in each run."""
        return self.key.rpartition('.')[2] in _FILLED_IN


def compare_settings(base: Any, run: Any, place: str = '') -> Iterator[Change]:
    """Settings that differ, innermost first named, in the order of the run.

    Lists are matched item by item, so that one more hook or transform is one change.

    Args:
        base: The base config, as plain dicts and lists.
        run: The run's.
        place: Where in the config they stand.
    """
    if isinstance(base, Mapping) and isinstance(run, Mapping):
        for key in [*run, *(key for key in base if key not in run)]:
            inner = f'{place}.{key}' if place else str(key)
            if key not in base:
                yield Change(inner, ABSENT, as_text(run[key]))
            elif key not in run:
                yield Change(inner, as_text(base[key]), ABSENT)
            else:
                yield from compare_settings(base[key], run[key], inner)
    elif _is_list(base) and _is_list(run):
        yield from _compare_lists(base, run, place)
    elif _key(base) != _key(run):
        yield Change(place, as_text(base), as_text(run))


def as_text(value: Any) -> str:
    """A value as it would stand in a config file."""
    if isinstance(value, Mapping):
        inner = ', '.join(f'{key}={as_text(item)}' for key, item in value.items())
        return f'dict({inner})'
    if isinstance(value, list):
        return f'[{", ".join(map(as_text, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(as_text, value))}{"," * (len(value) == 1)})'
    return repr(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _compare_lists(base: Sequence, run: Sequence, place: str) -> Iterator[Change]:
    plain = not any(isinstance(item, (Mapping, list, tuple)) for item in [*base, *run])
    if plain:
        if _key(base) != _key(run):
            yield Change(place, as_text(base), as_text(run))
        return
    # items of one type are taken for the same component with other settings
    names = [[_name(item) for item in side] for side in (base, run)]
    for what, i, i_end, j, j_end in SequenceMatcher(
        a=names[0], b=names[1]
    ).get_opcodes():
        if what == 'equal' or i_end - i == j_end - j:
            for k in range(i_end - i):
                yield from compare_settings(
                    base[i + k], run[j + k], f'{place}[{j + k}]'
                )
            continue
        for k in range(i, i_end):
            yield Change(f'{place}[{k}]', as_text(base[k]), ABSENT)
        for k in range(j, j_end):
            yield Change(f'{place}[{k}]', ABSENT, as_text(run[k]))


def _name(item: Any) -> str:
    if isinstance(item, Mapping) and 'type' in item:
        return str(item['type'])
    return _key(item)


def _key(value: Any) -> str:
    """Equal for equal settings; a list and a tuple of the same are equal."""
    return json.dumps(value, sort_keys=True, default=str)
