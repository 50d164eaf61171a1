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
from medic_mm.settings.places import REGISTRY_OF, Settings, settings_at, walk

# Settings of OpenMMLab and torch that would fail late, or not at all.
_SIDE: dict[str, Any] = dict(above=0)
_SHARE: dict[str, Any] = dict(low=0, below=1)
_COUNT: dict[str, Any] = dict(low=1, integer=True)
_RANGES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(('crop_size', 'img_size', 'patch_size', 'scale'), _SIDE),
    **dict.fromkeys(('embed_dims', 'num_heads', 'num_layers', 'num_classes'), _COUNT),
    **dict.fromkeys(('batch_size', 'max_epochs', 'max_iters', 'val_interval'), _COUNT),
    **dict.fromkeys(('accumulative_counts', 'prefetch_factor'), _COUNT),
    **dict.fromkeys(('attn_drop_rate', 'drop_path_rate', 'drop_rate'), _SHARE),
    'base_batch_size': dict(low=1),
    'clip_value': dict(above=0),
    'decoder_depth': dict(low=0, integer=True),
    'eta_min': dict(low=0),
    'lr': dict(low=0),
    'max_norm': dict(above=0),
    'num_workers': dict(low=0, integer=True),
    'seed': dict(low=0, high=2**32 - 1, integer=True),
    'start_factor': dict(above=0, high=1),
    'T_max': dict(above=0),
    'weight_decay': dict(low=0),
}
_NUMBER, _TEXT, _TRUTH = 'a number', 'a text', 'True or False'
_LIST, _DICT = 'a list', 'a dictionary'
_WORDS = {'int': _NUMBER, 'float': _NUMBER, 'str': _TEXT, 'bool': _TRUTH}
_NUMBER_BY_NAME = re.compile(r'(?i:dict|mapping)\[str, (int|float|int \| float)\]')
# Arguments of OpenMMLab that take more than they are annotated with.
_TAKE_MORE = {'arch', 'bias', 'loss_scale'}
# What no signature tells.
_BY_NAME = {
    **dict.fromkeys(('by_epoch', 'convert_to_iter_based', 'requires_grad'), bool),
    **dict.fromkeys(('cudnn_benchmark', 'reduce_zero_label'), bool),
    'prefix': str,
}
# What stands there is built from a dictionary, or a list of them.
_PARTS = {
    *REGISTRY_OF,
    *('auto_scale_lr', 'clip_grad', 'env_cfg', 'dist_cfg', 'mp_cfg', 'paramwise_cfg'),
    *('train_cfg', 'val_cfg', 'test_cfg', 'randomness', 'data_preprocessor'),
    *('train_dataloader', 'val_dataloader', 'test_dataloader'),
    *('backbone', 'neck', 'head', 'decode_head', 'auxiliary_head'),
    *('target_generator', 'teacher'),
} - {'strategy', 'worker_init_fn'}


def value_problems(cfg: Config) -> Iterator[str]:
    """A sentence for each value of a config that cannot be meant.

    NaN anywhere; infinity, but for an argument whose documentation speaks of it; a
    text, a list or a dictionary where the signature has a number, and the like; numbers
    out of range among settings of mmengine and torch.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    known: dict[tuple, Settings] = {}
    for place, node in read_places(cfg):
        yield from _part_problem(place, node)
        settings = isinstance(node, Mapping) and settings_at(place, node, scope)
        if not settings:
            continue
        known[place] = settings
        for key, value in node.items():
            yield from _type_problem('.'.join((*place, key)), value, settings, key)
            limits = _RANGES.get(key)
            several = _kind(value) == _LIST and limits in (_SIDE, _COUNT)
            if key in _RANGES and value is not None:
                for one in value if several else [value]:
                    if isinstance(one, float) and not math.isfinite(one):
                        continue  # its own sentence, below
                    yield from _range_problem('.'.join(place), key, one)
    for key in cfg:
        for place, value in walk(cfg[key], (key,)):
            if isinstance(value, float) and not math.isfinite(value):
                if math.isinf(value) and _may_be_infinite(place, known):
                    continue
                yield f'{".".join(place)} is {value}: it must be a finite number'


def _part_problem(place: tuple[str, ...], node: Any) -> Iterator[str]:
    """A number or text where something is built from a dictionary, and gaps in it."""
    name, above = '.'.join(place), place[-2:-1] or ('',)
    is_part = place[-1] in _PARTS or place == ('model',)
    in_parts = above[0] == 'default_hooks' or (
        place[-1].isdigit() and above[0] in REGISTRY_OF
    )
    if (is_part or in_parts) and _kind(node) in (_NUMBER, _TEXT, _TRUTH):
        yield f'{name} is {node!r}, {_kind(node)}, where a dictionary is wanted'
    if not isinstance(node, Mapping) or not node:
        return
    if place[-1].endswith('_dataloader') and 'dataset' not in node:
        yield f'{name} has no dataset'
    if place == ('randomness',) and 'seed' not in node:
        yield 'randomness has no seed: give a number, or None for a random one'


def incomplete_loops(cfg: Config) -> Iterator[str]:
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
    if key in _BY_NAME:
        kind = inspect.Parameter.KEYWORD_ONLY
        parameter = inspect.Parameter(key, kind, annotation=_BY_NAME[key])
    if parameter is None or value is None or key in _RANGES or key in _TAKE_MORE:
        return
    text = parameter.annotation
    if not isinstance(text, str):
        text = inspect.formatannotation(text)
    wanted, found = _wanted(text, parameter), _kind(value)
    alike = {wanted, found} in ({_NUMBER, _TRUTH}, {_NUMBER, _LIST}, {_TRUTH, _LIST})
    # OpenMMLab says int and bool for what may be a list
    ours = all(c.__module__.startswith('medic_mm.') for c in settings.components)
    short = ours and found == _LIST and wanted != _LIST
    # a word by default may be one of several kinds
    free = parameter.annotation is parameter.empty and wanted == _TEXT
    alike |= free and found != _DICT
    if wanted and found and found != wanted and (short or not alike):
        hint = _hint(name, value, wanted)
        yield f'{name} is {value!r}, {found}, where {wanted} is wanted{hint}'
    if _NUMBER_BY_NAME.search(text) and isinstance(value, Mapping):
        for inner, number in value.items():
            if _kind(number) != _NUMBER:
                hint = _hint(f'{name}.{inner}', number, _NUMBER)
                yield f'{name}.{inner} is {number!r}, where a number is wanted{hint}'


def _wanted(annotation: str, parameter: inspect.Parameter) -> str | None:
    """The one kind of value that a parameter takes; None where it may be several."""
    # a number may stand for all of a list
    if re.match(
        r'(?i:optional\[)?(?i:tuple|list|sequence)\b(?!.*(str|\||Union))', annotation
    ):
        return _LIST
    words = re.findall(r'\b(?!Optional|Union|None|typing)\w+', annotation)
    kinds = {_WORDS.get(word) for word in words}
    if parameter.annotation is not parameter.empty:
        return kinds.pop() if len(kinds) == 1 else None
    kind = _kind(parameter.default)
    return kind if kind in (_NUMBER, _TEXT, _TRUTH) else None


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, bool):
        return _TRUTH
    if isinstance(value, int | float):
        return _NUMBER
    if isinstance(value, Mapping):
        return _DICT
    return _LIST if isinstance(value, list | tuple) else None


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
