"""Seeded changes of the shipped configs, and what each must lead to."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import initialize
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    WEIGHT_INITIALIZERS,
    init_default_scope,
)
from mmengine.runner import Runner
from shrinking import shrink
from shrinking_benchmarks import shrink_benchmark
from torch import nn

from medic_mm.errors import UserError
from medic_mm.settings.building import naming_places
from medic_mm.settings.options import read_places
from medic_mm.settings.places import settings_at
from medic_mm.settings.run_config import setting_problems
from medic_mm.settings.values import incomplete_loops

#: Each kind of change, with the outcomes that are right for it.
KINDS = {
    'dropped': ('built', 'refused', 'named'),
    'misspelt': ('refused', 'named'),
    'wrong type': ('refused', 'named'),
    'NaN': ('refused',),
    'infinity': ('refused',),
    'out of range': ('refused', 'named'),
}
# Values that are wrong for every component with a setting of this name.
OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    'accumulative_counts': (0, -1),
    'base_batch_size': (0, -256),
    'batch_size': (0, -1, 2.5),
    'beta': (0, -1.0),
    'crop_size': (0, -1),
    'decoder_depth': (-1,),
    'drop_path_rate': (-0.1, 1.5),
    'embed_dims': (0, -8),
    'eta_min': (-1e-5,),
    'grid': (0, -2),
    'k': ((0,), (-1,)),
    'layer_decay_rate': (-0.5, 0.0),
    'lr': (-1e-3,),
    'mask_ratio': (-0.1, 1.0, 1.5),
    'max_epochs': (0, -5),
    'max_iters': (0, -5),
    'max_norm': (0, -1.0),
    'min_area': (0, -3),
    'num_classes': (0, -2),
    'num_workers': (-1,),
    'patch_size': (0, -8),
    'per_class': (0, -5),
    'prob': (-0.5, 1.5),
    'scale': (0, -32),
    'seed': (-1,),
    'start_factor': (0, -0.5, 2.0),
    'tau': (0, -0.1),
    'temperature': (0, -0.1),
    'val_interval': (0, -1),
    'weight_decay': (-0.05,),
}
# As their documentation says.
MAY_BE_INFINITE = ('magnitude_std', 'norm_type')
# Anything may stand there, and any name.
FREE = ('metainfo', 'custom_keys', 'meta_keys', 'mean_pattern', 'policies', 'cfg')


class Mutation(NamedTuple):
    """A change of one setting."""

    path: Path
    kind: str
    place: tuple[str, ...]
    value: Any


class Outcome(NamedTuple):
    """What a change led to: built, refused, named or raw; with the words of it."""

    what: str
    text: str


def small_config(path: Path) -> Config:
    """A shipped config at test size."""
    cfg = Config.fromfile(path)
    return shrink_benchmark(cfg) if 'benchmarks' in path.parts else shrink(cfg)


def mutations(configs: list[Path], count: int, seed: int) -> Iterator[Mutation]:
    """So many changes, of the kinds in turn, each of a config that is drawn."""
    draw = random.Random(seed)
    kinds = list(KINDS)
    made = 0
    known: dict[Path, Config] = {}
    chosen = draw.sample(configs, min(len(configs), max(6, count // 12)))
    while made < count:
        path, kind = draw.choice(chosen), kinds[made % len(kinds)]
        cfg = known.setdefault(path, small_config(path))
        found = list(_candidates(cfg, kind))
        if not found:
            continue
        place, value = draw.choice(found)
        if kind == 'misspelt':
            value = _misspell(place[-1], draw)
        elif kind == 'wrong type':
            value = draw.choice(_wrong_types(value))
        elif kind == 'out of range':
            value = draw.choice(OUT_OF_RANGE[place[-1]])
        yield Mutation(path, kind, place, value)
        made += 1


def _candidates(cfg: Config, kind: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    scope = cfg.get('default_scope') or 'mmengine'
    for place, node in read_places(cfg):
        if not isinstance(node, Mapping) or any(key in FREE for key in place):
            continue
        settings = settings_at(place, node, scope)
        if settings is None:
            continue
        for key, value in node.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if key in FREE or (key in ('type', '_scope_') and kind != 'misspelt'):
                continue
            if kind in ('NaN', 'infinity') and not is_number:
                continue
            if kind == 'infinity' and key in MAY_BE_INFINITE:
                continue
            if kind == 'out of range' and key not in OUT_OF_RANGE:
                continue
            # a hook of another name is another hook
            is_hook = place == ('default_hooks',) and key not in settings.parameters
            if kind == 'misspelt' and (len(key) < 4 or key == 'type' or is_hook):
                continue
            if kind == 'wrong type' and (value is None or not _wrong_types(value)):
                continue
            yield (*place, key), value


def _misspell(key: str, draw: random.Random) -> str:
    changed = key
    while changed == key:
        at = draw.randrange(1, len(key) - 1)
        dropped, doubled = key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:]
        swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
        changed = draw.choice([dropped, doubled, swapped])
    return changed


def _wrong_types(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return ['maybe', {'a': 1}]
    if isinstance(value, int | float):
        return ['abc', {'a': 1}]
    if isinstance(value, str):
        return [5, ['a', 'b'], {'a': 1}]
    if isinstance(value, Mapping):
        return [5, 'abc']
    if isinstance(value, list | tuple):
        return ['abc']
    return []


def mutate(cfg: Config, mutation: Mutation) -> Config:
    """The config with the change."""
    cfg = copy.deepcopy(cfg)
    *above, key = mutation.place
    node: Any = cfg
    for step in above:
        node = node[int(step)] if isinstance(node, list | tuple) else node[step]
    if mutation.kind == 'dropped':
        node.pop(key)
    elif mutation.kind == 'misspelt':
        node[mutation.value] = node.pop(key)
    elif mutation.kind in ('NaN', 'infinity'):
        node[key] = float('nan' if mutation.kind == 'NaN' else 'inf')
    else:
        node[key] = mutation.value
    return cfg


def outcome_of(cfg: Config, mutation: Mutation, capture: Any) -> Outcome:
    """Check the changed config, then build the part that was changed."""
    problems = [*setting_problems(cfg), *incomplete_loops(cfg)]
    if problems:
        return Outcome('refused', '\n'.join(problems))
    capture.readouterr()
    try:
        with naming_places():
            build_part(cfg, mutation.place)
    except UserError as error:
        return Outcome('refused', str(error))
    except Exception as error:
        shown = capture.readouterr().err
        what = 'named' if 'while building ' in shown else 'raw'
        return Outcome(what, f'{shown}{type(error).__name__}: {error}')
    return Outcome('built', '')


def build_part(cfg: Config, place: tuple[str, ...]) -> Any:
    """What is built from the part of a config that a place lies in."""
    scope = cfg.get('default_scope') or 'mmengine'
    init_default_scope(scope)
    top = place[0]
    if 'init_cfg' in place:
        return _initializer(cfg, place)
    if top == 'model' or top == 'data_preprocessor':
        return _model(cfg)
    if top.endswith('_dataloader'):
        return _loader(cfg[top])
    if top == 'optim_wrapper':
        return build_optim_wrapper(_model(cfg), cfg.optim_wrapper)
    if top == 'param_scheduler':
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        for scheduler in cfg.param_scheduler:
            kept = {k: v for k, v in scheduler.items() if k != 'convert_to_iter_based'}
            PARAM_SCHEDULERS.build(kept, default_args=dict(optimizer=optimizer))
        return None
    if top in ('train_cfg', 'val_cfg', 'test_cfg'):
        return _loop(cfg, top)
    if top in ('custom_hooks', 'default_hooks'):
        return _hook(cfg[top], place[1])
    if top.endswith('_evaluator'):
        return METRICS.build(cfg[top])
    if top == 'tta_pipeline':
        return [TRANSFORMS.build(transform) for transform in cfg.tta_pipeline]
    if top == 'log_processor':
        return LOG_PROCESSORS.build(cfg.log_processor)
    if top == 'randomness':
        return Runner.set_randomness(SimpleNamespace(), **cfg.randomness)
    return None


def _model(cfg: Config) -> nn.Module:
    settings = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return MODELS.build(settings)


def _initializer(cfg: Config, place: tuple[str, ...]) -> Any:
    """Built when weights are drawn."""
    node: Any = cfg
    for step in place[: place.index('init_cfg') + 1]:
        node = node[int(step)] if isinstance(node, list | tuple) else node.get(step)
    for one in node if isinstance(node, list) else [node]:
        if isinstance(one, Mapping) and one.get('type') == 'Pretrained':
            WEIGHT_INITIALIZERS.build(one)
        elif one is not None:
            initialize(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), one)


def _loader(settings: dict) -> Any:
    settings = copy.deepcopy(settings)
    if 'dataset' in settings:
        dataset = settings['dataset']
        if isinstance(dataset, dict):
            dataset = DATASETS.build({**dataset, 'lazy_init': True})
        elif not isinstance(dataset, list):
            dataset = DATASETS.build(dataset)
        settings['dataset'] = list(range(100000))
    return Runner.build_dataloader(settings)


def _loop(cfg: Config, top: str) -> Any:
    settings = copy.deepcopy(cfg[top])
    by_epoch = settings.pop('by_epoch', True)
    names = dict(
        train_cfg='EpochBasedTrainLoop', val_cfg='ValLoop', test_cfg='TestLoop'
    )
    if not by_epoch:
        names['train_cfg'] = 'IterBasedTrainLoop'
    loader = torch.utils.data.DataLoader(list(range(8)))
    runner = SimpleNamespace(logger=None, visualizer=SimpleNamespace())
    given = dict(runner=runner, dataloader=loader)
    if top != 'train_cfg':
        given['evaluator'] = METRICS.build(dict(type='Accuracy'))
    settings.setdefault('type', names[top])
    return LOOPS.build(settings, default_args=given)


def _hook(hooks: Any, key: str) -> Hook | None:
    found = hooks[int(key)] if isinstance(hooks, list) else hooks.get(key)
    hook = copy.deepcopy(found)
    if hook is None:
        return None
    if isinstance(hook, dict):
        hook.pop('priority', None)
    built = HOOKS.build(hook)
    for name in ('train_dataloader', 'test_dataloader'):
        if isinstance(hook, dict) and name in hook:
            _loader(hook[name])
    return built
