"""What stands at a place in a config: its component, and the keys that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine import registry as host
from mmengine.evaluator import Evaluator
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from medic_mm.apis.signatures import Settings, settings_of


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys that mmengine itself reads in a dict that stands for a component.
COMPONENT_KEYS = frozenset({'type', '_scope_', '_delete_'})

# Top-level keys that hosts read without their being arguments of the Runner.
_TOP_LEVEL = _names(
    'activation_checkpointing compile custom_imports efficient_conv_bn_eval '
    'find_unused_parameters model_wrapper_cfg runner_type strategy sync_bn '
    'tta_model tta_pipeline'
)
_DEFAULT_HOOKS = _names(
    'checkpoint logger param_scheduler runtime_info sampler_seed timer'
)
# Keys that mmengine takes out of a dict before it builds the component.
_TAKEN_OUT = {
    'hook': frozenset({'priority'}),
    'parameter scheduler': frozenset({'convert_to_iter_based'}),
    'optim_wrapper': frozenset({'constructor', 'paramwise_cfg'}),
    'loop': frozenset({'by_epoch'}),
}
# The same for what a component builds from a dict under this key.
_TAKEN_OUT_BELOW = {
    'norm_cfg': frozenset({'requires_grad'}),
    'policies': frozenset({'magnitude_key', 'magnitude_range'}),
}
_DATALOADER = _names(
    'batch_sampler collate_fn dataset disable_subprocess_warning num_batch_per_epoch '
    'sampler worker_init_fn'
)
# What the hosts' constructors and ours read in paramwise_cfg.
_PARAMWISE = _names(
    'bias_decay_mult bias_lr_mult bypass_duplicate custom_keys dcn_offset_lr_mult '
    'decay_rate decay_type dwconv_decay_mult flat_decay_mult layer_decay_rate '
    'norm_decay_mult num_layers'
)
# Which registry a key's component comes from, wherever the key stands.
_REGISTRY_OF = {
    'batch_sampler': host.DATA_SAMPLERS,
    'collate_fn': host.FUNCTIONS,
    'custom_hooks': host.HOOKS,
    'dataset': host.DATASETS,
    'datasets': host.DATASETS,
    'default_hooks': host.HOOKS,
    'init_cfg': host.WEIGHT_INITIALIZERS,
    'log_processor': host.LOG_PROCESSORS,
    'model_wrapper_cfg': host.MODEL_WRAPPERS,
    'optim_wrapper': host.OPTIM_WRAPPERS,
    'optimizer': host.OPTIMIZERS,
    'param_scheduler': host.PARAM_SCHEDULERS,
    'pipeline': host.TRANSFORMS,
    'sampler': host.DATA_SAMPLERS,
    'strategy': host.STRATEGIES,
    'test_evaluator': host.METRICS,
    'transforms': host.TRANSFORMS,
    'val_evaluator': host.METRICS,
    'vis_backends': host.VISBACKENDS,
    'visualizer': host.VISUALIZERS,
    'worker_init_fn': host.FUNCTIONS,
}
_LOOPS = {'train_cfg', 'val_cfg', 'test_cfg'}
_ALL_REGISTRIES = [v for v in vars(host).values() if isinstance(v, Registry)]


def top_level_settings(runner_type: str | None) -> Settings:
    """Keys of a config that the Runner reads."""
    runner = Runner if runner_type is None else host.RUNNERS.get(runner_type)
    settings = settings_of(runner)
    return Settings(settings.names - {'cfg'} | _TOP_LEVEL, settings.any_name)


def settings_at(
    place: Sequence[str], node: dict, type_: Any, scope: str
) -> Settings | None:
    """The settings that the dict at ``place`` takes.

    Args:
        place: Keys from the root of the config down to the dict; not empty.
        node: The dict that stands there; empty where none does.
        type_: The component that it will name by ``type``, or None.
        scope: The config's ``default_scope``.

    Returns:
        None where nothing is known: for a component that is not found (building it
        says so better), and for a dict that is no component's.
    """
    registry = _registry_of(place)
    if type_ is None:
        fixed = _fixed_settings(place)
        if fixed is not None:
            return fixed
        components = _default_components(place, node, scope)
    else:
        found = find_component(type_, registry, scope)
        components = [] if found is None else [found]
    if not components:
        return None
    settings = Settings(COMPONENT_KEYS | _TAKEN_OUT.get(registry.name, frozenset()))
    for key in place:
        settings |= Settings(_TAKEN_OUT_BELOW.get(key, frozenset()))
    for component in components:
        settings |= settings_of(component)
    return settings


def find_component(type_: Any, registry: Registry, scope: str) -> Callable | None:
    """The component that ``type_`` names, searched in ``registry`` first."""
    if not isinstance(type_, str):
        return type_ if callable(type_) else None
    names = [type_] if '.' in type_ else [f'{scope}.{type_}', type_]
    for candidate in (registry, *_ALL_REGISTRIES):
        for name in names:
            try:
                found = candidate.get(name)
            except (RuntimeError, ImportError):  # OneDL and stock: not found
                continue
            if callable(found):
                return found
    return None


def _registry_of(place: Sequence[str]) -> Registry:
    if place[0] in _LOOPS:
        return host.LOOPS
    known = [_REGISTRY_OF[key] for key in place if key in _REGISTRY_OF]
    return known[-1] if known else host.MODELS


def _fixed_settings(place: Sequence[str]) -> Settings | None:
    """The keys of dicts that mmengine reads itself."""
    last = place[-1]
    if last.endswith('_dataloader'):
        return settings_of(DataLoader) | Settings(_DATALOADER)
    if last == 'clip_grad':
        both = settings_of(clip_grad_norm_) | settings_of(clip_grad_value_)
        return Settings(both.names - {'parameters'} | {'type'})
    fixed = {
        ('auto_scale_lr',): Settings(frozenset({'base_batch_size', 'enable'})),
        ('default_hooks',): Settings(_DEFAULT_HOOKS),
        ('env_cfg',): Settings(
            frozenset({'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'})
        ),
        ('env_cfg', 'dist_cfg'): settings_of(torch.distributed.init_process_group)
        | Settings(frozenset({'init_backend', 'port'})),
        ('env_cfg', 'mp_cfg'): settings_of(set_multi_processing),
        ('optim_wrapper', 'paramwise_cfg'): Settings(_PARAMWISE),
        ('optim_wrapper', 'paramwise_cfg', 'custom_keys'): Settings(any_name=True),
        ('randomness',): settings_of(Runner.set_randomness),
    }
    return fixed.get(tuple(place))


def _default_components(place: Sequence[str], node: dict, scope: str) -> list[Callable]:
    """What the hosts build from a dict without ``type``."""
    if place[-1] == 'data_preprocessor':
        names = ('SelfSupDataPreprocessor', 'ClsDataPreprocessor')
        found = [find_component(name, host.MODELS, scope) for name in names]
        return [component for component in found if component is not None]
    if len(place) > 1:
        return []
    by_epoch = node.get('by_epoch', True)
    defaults: dict[str, Callable] = {
        'log_processor': LogProcessor,
        'model_wrapper_cfg': MMDistributedDataParallel,
        'optim_wrapper': OptimWrapper,
        'test_cfg': TestLoop,
        'test_evaluator': Evaluator,
        'train_cfg': EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop,
        'val_cfg': ValLoop,
        'val_evaluator': Evaluator,
        'visualizer': Visualizer,
    }
    return [defaults[place[0]]] if place[0] in defaults else []
