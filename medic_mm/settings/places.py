"""What stands at a place in a config: its component, and the settings it takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine import registry as host
from mmengine import runner as loops
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Keys that mmengine itself reads in a dict that stands for a component.
COMPONENT_KEYS = 'type _scope_ _delete_'
# Top-level keys that are read without being arguments of the Runner.
_TOP_LEVEL = (
    'activation_checkpointing compile custom_imports efficient_conv_bn_eval '
    'find_unused_parameters knn_test_dataloader knn_train_dataloader '
    'model_wrapper_cfg runner_type strategy sync_bn tta_model tta_pipeline'
)
# Keys taken out of a dict before it is built, by its registry and by a key above it.
_TAKEN_OUT = {
    'hook': 'priority',
    'loop': 'by_epoch',
    'optim_wrapper': 'constructor paramwise_cfg',
    'parameter scheduler': 'convert_to_iter_based',
    'norm_cfg': 'requires_grad',
    'policies': 'magnitude_key magnitude_range',
    'vision_encoder': 'pretrained',
}
# Dicts that are read without a component: by which functions, and which further names.
_READ: dict[str, tuple[tuple[Callable, ...], str]] = {
    'auto_scale_lr': ((), 'base_batch_size enable'),
    'clip_grad': ((clip_grad_norm_, clip_grad_value_), 'type'),
    'default_hooks': (
        (),
        'checkpoint logger param_scheduler runtime_info sampler_seed timer',
    ),
    'env_cfg': ((), 'cudnn_benchmark dist_cfg mp_cfg resource_limit'),
    'dist_cfg': ((torch.distributed.init_process_group,), 'init_backend port'),
    'mp_cfg': ((set_multi_processing,), ''),
    'paramwise_cfg': (
        (),
        'bias_decay_mult bias_lr_mult bypass_duplicate custom_keys dcn_offset_lr_mult '
        'decay_rate decay_type dwconv_decay_mult flat_decay_mult layer_decay_rate '
        'norm_decay_mult num_layers',
    ),
    'randomness': ((loops.Runner.set_randomness,), ''),
    'dataloader': (
        (DataLoader,),
        'batch_sampler collate_fn dataset disable_subprocess_warning '
        'num_batch_per_epoch sampler worker_init_fn',
    ),
}
# What a dict without type stands for.
_DEFAULTS: dict[str, tuple[Callable | str, ...]] = {
    'data_preprocessor': ('SelfSupDataPreprocessor', 'ClsDataPreprocessor'),
    'log_processor': (loops.LogProcessor,),
    'model_wrapper_cfg': (MMDistributedDataParallel,),
    'optim_wrapper': (OptimWrapper,),
    'test_cfg': (loops.TestLoop,),
    'test_evaluator': (Evaluator,),
    'train_cfg': (loops.EpochBasedTrainLoop,),
    'val_cfg': (loops.ValLoop,),
    'val_evaluator': (Evaluator,),
    'visualizer': (Visualizer,),
}
# Which registry a key's component comes from, wherever the key stands.
REGISTRY_OF = {
    key: registry
    for registry, keys in (
        (host.DATASETS, 'dataset datasets'),
        (host.DATA_SAMPLERS, 'batch_sampler sampler'),
        (host.FUNCTIONS, 'collate_fn worker_init_fn'),
        (host.HOOKS, 'custom_hooks default_hooks'),
        (host.LOG_PROCESSORS, 'log_processor'),
        (host.METRICS, 'test_evaluator val_evaluator'),
        (host.MODEL_WRAPPERS, 'model_wrapper_cfg'),
        (host.OPTIMIZERS, 'optimizer'),
        (host.OPTIM_WRAPPERS, 'optim_wrapper'),
        (host.PARAM_SCHEDULERS, 'param_scheduler'),
        (host.STRATEGIES, 'strategy'),
        (host.TRANSFORMS, 'pipeline transforms'),
        (host.VISBACKENDS, 'vis_backends'),
        (host.VISUALIZERS, 'visualizer'),
        (host.WEIGHT_INITIALIZERS, 'init_cfg'),
    )
    for key in keys.split()
}
_ALL_REGISTRIES = [v for v in vars(host).values() if isinstance(v, Registry)]


class Settings(NamedTuple):
    """The settings that a dict of a config takes.

    Attributes:
        parameters: Names, with their parameter where a signature has them.
        loose: It may take more, which its signatures do not tell.
        components: The classes or functions whose settings these are.
    """

    parameters: dict[str, inspect.Parameter | None]
    loose: bool = False
    components: tuple[Callable, ...] = ()


def settings_of(
    *components: Callable, names: str = '', loose: bool = False
) -> Settings:
    """The settings that classes or functions take by keyword, and further ``names``.

    ``**kwargs`` may be handed on to the next class of the method resolution order, so
    its settings count as well; or elsewhere, so the settings are ``loose``.
    """
    parameters: dict[str, inspect.Parameter | None] = dict.fromkeys(names.split())
    for component in components:
        found, more = _parameters(component)
        parameters, loose = {**found, **parameters}, loose or more
    return Settings(parameters, loose, components)


@functools.cache
def _parameters(component: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    owners = component.__mro__ if inspect.isclass(component) else ()
    # torch.nn.Module takes no names, whatever its signature says
    classes = [c for c in owners if c.__module__ != 'torch.nn.modules.module']
    inits = [vars(c)['__init__'] for c in classes if '__init__' in vars(c)]
    found: dict[str, inspect.Parameter] = {}
    loose = False
    for function in inits or [component]:
        try:
            own = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # built without a signature, e.g. in C
            return found, True
        found = {**{p.name: p for p in own if p.kind in _NAMED}, **found}
        if function is object.__init__ or all(p.kind is not p.VAR_KEYWORD for p in own):
            break
        # OpenMMLab's hook takes any name, and fails with it at the first checkpoint
        loose = component is not CheckpointHook
    for taken in ('self', 'parameters'):  # of methods; of functions that clip gradients
        found.pop(taken, None)
    return found, loose


def top_level_settings(runner_type: str | None) -> Settings:
    """Keys of a config that the Runner reads."""
    runner = loops.Runner if runner_type is None else host.RUNNERS.get(runner_type)
    return settings_of(runner, names=_TOP_LEVEL)


def settings_at(place: Sequence[str], node: Mapping, scope: str) -> Settings | None:
    """The settings that the dict at ``place`` takes.

    Args:
        place: Keys from the root of the config down to the dict; not empty.
        node: The dict that stands there.
        scope: The config's ``default_scope``.

    Returns:
        None where nothing is known: for a component that is not found, and for a dict
        that does not stand for a component.
    """
    last = 'dataloader' if place[-1].endswith('_dataloader') else place[-1]
    registry, type_ = registry_of(place), node.get('type')
    if last in _READ and (type_ is None or last == 'clip_grad'):
        functions, names = _READ[last]
        return settings_of(*functions, names=names, loose=last == 'paramwise_cfg')
    wanted: Sequence[Any] = [type_]
    if type_ is None:
        known = last == 'data_preprocessor' or not place[1:]
        wanted = _DEFAULTS.get(last, ()) if known else ()
        if last == 'train_cfg' and not node.get('by_epoch', True):
            wanted = [loops.IterBasedTrainLoop]
    found = [find_component(one, registry, scope) for one in wanted]
    names = [
        COMPONENT_KEYS,
        *(_TAKEN_OUT.get(key, '') for key in (registry.name, *place)),
    ]
    components = [component for component in found if component is not None]
    return settings_of(*components, names=' '.join(names)) if components else None


def find_component(type_: Any, registry: Registry, scope: str) -> Callable | None:
    """The component that ``type_`` names, searched in ``registry`` first."""
    if not isinstance(type_, str):
        return type_ if callable(type_) else None
    names = [type_] if '.' in type_ else [f'{scope}.{type_}', type_]
    others = _ALL_REGISTRIES if registry is host.MODELS else []
    for candidate in (registry, *others):
        for name in names:
            try:
                found = candidate.get(name)
            except (RuntimeError, ImportError):  # OneDL and stock: not found
                continue
            if callable(found):
                return found
    return None


def registry_of(place: Sequence[str]) -> Registry:
    """The registry that the component at a place comes from."""
    if place[0] in ('train_cfg', 'val_cfg', 'test_cfg'):
        return host.LOOPS
    known = [REGISTRY_OF[key] for key in place if key in REGISTRY_OF]
    return known[-1] if known else host.MODELS


def walk(node: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    """All places from ``node`` down, with their values."""
    yield place, node
    inner: Any = node.items() if isinstance(node, Mapping) else ()
    for key, value in enumerate(node) if isinstance(node, list | tuple) else inner:
        yield from walk(value, (*place, str(key)))
