"""Whether the state of a run in a checkpoint fits the run that resumes from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from medic_mm.checkpoints.strict import not_finite, unusable
from medic_mm.helpers import listed

#: What a checkpoint needs for resuming, beside weights and optimizer.
_NUMBERS = ('epoch', 'iter')
#: States of an optimizer that have the shape of their parameter.
_LIKE_PARAMETER = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer', 'mu')
#: Settings that are not a network's business, or may have another length.
_ANY_VALUE = ('params', 'milestones')
#: Settings of a scheduler that say when it acts.
_SPAN = ('begin', 'end', 'T_max', 'total_iters', 'eta_min', 'gamma', 'milestones')


def missing_state(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint lacks for resuming; empty where it has all."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    lacking = [
        f"meta['{key}']"
        for key in _NUMBERS
        if not isinstance(meta.get(key), int) or isinstance(meta.get(key), bool)
    ]
    hub = checkpoint.get('message_hub')
    if not isinstance(hub, Mapping) or not _is_hub(hub):
        lacking.append('message_hub')
    return listed(lacking) if lacking else ''


def _is_hub(hub: Mapping[str, Any]) -> bool:
    """Whether MMEngine can take this for the state of its message hub."""
    parts = [hub.get(key) for key in ('log_scalars', 'runtime_info', 'resumed_keys')]
    if not all(isinstance(part, Mapping) for part in parts):
        return False
    flags = hub['resumed_keys'].values()
    return all(isinstance(x, HistoryBuffer) for x in hub['log_scalars'].values()) and (
        all(isinstance(flag, bool) for flag in flags)
    )


def optimizer_misfit(wrapper: OptimWrapper | OptimWrapperDict, saved: Any) -> str:
    """Why the saved state of an optimizer does not fit; empty where it does."""
    for name, single, state in _optimizers(wrapper, saved):
        where = f'optimizer {name!r}: ' if name else ''
        groups = state.get('param_groups') if isinstance(state, Mapping) else None
        if not _are_groups(groups) or not isinstance(state.get('state'), Mapping):
            return f'{where}no state of an optimizer'
        problem = _groups_misfit(
            single.optimizer.param_groups, groups
        ) or _values_misfit(single.optimizer.param_groups, groups, state['state'])
        if problem:
            return where + problem
    return ''


def same_groups(wrapper: OptimWrapper | OptimWrapperDict, saved: Any) -> bool:
    """Whether the learning rates of the saved groups can go on."""
    return all(
        isinstance(state, Mapping)
        and _are_groups(state.get('param_groups'))
        and len(single.optimizer.param_groups) == len(state['param_groups'])
        and not _other_settings(single.optimizer.param_groups, state['param_groups'])
        for _, single, state in _optimizers(wrapper, saved)
    )


def without_moments(wrapper: OptimWrapper | OptimWrapperDict, saved: Any) -> Any:
    """The saved state with the learning rates of its groups, and nothing else."""
    fresh = {}
    for name, single, state in _optimizers(wrapper, saved):
        own = single.optimizer.state_dict()['param_groups']
        groups = [
            {**old, 'params': new['params']}
            for old, new in zip(state['param_groups'], own, strict=True)
        ]
        fresh[name] = {**state, 'state': {}, 'param_groups': groups}
    return fresh if isinstance(wrapper, OptimWrapperDict) else fresh['']


def schedulers_misfit(schedulers: Any, saved: Any) -> str:
    """Why the saved states of schedulers do not fit; empty where they do."""
    for name, own, states in _schedulers(schedulers, saved):
        where = f' of {name!r}' if name else ''
        if not isinstance(states, Sequence) or len(own) != len(states):
            count = len(states) if isinstance(states, Sequence) else 'no'
            return f'{count} of them{where} in the file, {len(own)} in the config'
        for number, (scheduler, state) in enumerate(zip(own, states, strict=True)):
            own_state = scheduler.state_dict()
            if not isinstance(state, Mapping) or set(own_state) != set(state):
                kind = type(scheduler).__name__
                return f"scheduler {number}{where} is not the config's {kind}"
            if wrong := _other_kinds(own_state, state):
                return f'{listed(wrong)} of scheduler {number}{where}'
    return ''


def _other_kinds(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Settings that are numbers, lists or flags here and something else in the file."""
    return [
        f'{key}={saved[key]!r}'
        for key, value in own.items()
        if key in saved and key not in _ANY_VALUE and _unlike(value, saved[key])
    ]


def _unlike(own: Any, saved: Any) -> bool:
    if own is None:
        return not isinstance(saved, (int, float, str, type(None)))
    if isinstance(own, (bool, str)):
        return type(saved) is not type(own)
    if isinstance(own, (int, float)):
        return not _is_number(saved) or (own >= 0 > saved)
    if isinstance(own, (list, tuple)):
        return (
            not isinstance(saved, (list, tuple))
            or len(own) != len(saved)
            or any(map(_unlike, own, saved))
        )
    return isinstance(own, Mapping) and not isinstance(saved, Mapping)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and not math.isnan(value)


def kept_settings(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    """Settings that a resumed run takes from the checkpoint, not from the config."""
    lines = []
    for name, own, states in _schedulers(
        runner.param_schedulers, checkpoint.get('param_schedulers')
    ):
        for scheduler, state in zip(own, states or (), strict=False):
            current = scheduler.state_dict()
            lines += [
                f'{name or "param_scheduler"} {type(scheduler).__name__}.{key}='
                f'{state[key]} (config: {current[key]})'
                for key in _SPAN
                if key in current and key in state and _differ(current[key], state[key])
            ]
    for name, single, state in _optimizers(
        runner.optim_wrapper, checkpoint.get('optimizer')
    ):
        lines += _kept_rates(name, single, state)
    return lines


def _kept_rates(name: str, wrapper: OptimWrapper, state: Any) -> list[str]:
    if not isinstance(state, Mapping):
        return []
    found: dict[str, str] = {}
    groups = state.get('param_groups') or ()
    for own, saved in zip(wrapper.optimizer.param_groups, groups, strict=False):
        for key in ('initial_lr', 'weight_decay', 'betas', 'momentum'):
            if key in own and key in saved and _differ(own[key], saved[key]):
                words = f'{name or "optimizer"} {key}={saved[key]} (config: {own[key]})'
                found.setdefault(key, words)
    return list(found.values())


def _differ(first: Any, second: Any) -> bool:
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return list(first) != list(second)
    return bool(first != second)


def _are_groups(groups: Any) -> bool:
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get('params'), list)
        for group in groups
    )


def _groups_misfit(own: Sequence[Mapping], saved: Sequence[Mapping]) -> str:
    if len(own) != len(saved):
        return f'{len(saved)} groups of parameters in the file, {len(own)} in the model'
    if lacking := _other_settings(own, saved):
        return f'saved by another optimizer, without {listed(lacking)}'
    for number, (mine, theirs) in enumerate(zip(own, saved, strict=True)):
        found = len(theirs['params'])
        if len(mine['params']) != found:
            return (
                f'{found} parameters of group {number} in the file, '
                f'{len(mine["params"])} in the model'
            )
        if wrong := _other_kinds(mine, theirs):
            return f'{listed(wrong)} of group {number}'
    return ''


def _other_settings(own: Sequence[Mapping], saved: Sequence[Mapping]) -> list[str]:
    """Numbers that this optimizer has in its groups and the saved one has not."""
    return [
        key
        for key, value in (own[0].items() if own else ())
        if isinstance(value, (int, float, tuple))
        and not isinstance(value, bool)
        and any(key not in group for group in saved)
    ]


def _values_misfit(
    own: Sequence[Mapping], saved: Sequence[Mapping], states: Mapping
) -> str:
    mine = [parameter for group in own for parameter in group['params']]
    theirs = [number for group in saved for number in group['params']]
    if any(not isinstance(number, int) for number in theirs):
        return 'no numbers of parameters'
    found = [states.get(number, {}) for number in theirs]
    usual = Counter(tuple(x) for x in found if isinstance(x, Mapping) and x)
    keys = set(next(iter(usual.most_common(1)), ((), 0))[0])
    for position, (parameter, state) in enumerate(zip(mine, found, strict=True)):
        if not isinstance(state, Mapping) or (state and set(state) != keys):
            return f'the state of parameter {position} does not have {listed(keys)}'
        for key, value in state.items():
            if problem := _value_misfit(key, value, parameter):
                return f'{key} of parameter {position} {problem}'
    return ''


def _value_misfit(key: str, value: Any, parameter: Tensor) -> str:
    """What is wrong with a number or tensor of an optimizer's state."""
    if key in _LIKE_PARAMETER:
        if unusable(value):
            return f'is a {type(value).__name__}, not a tensor'
        if value.shape != parameter.shape:
            return f'has the shape {list(value.shape)}, not {list(parameter.shape)}'
    if isinstance(value, Tensor):
        if unusable(value) or not_finite(value):
            return 'has NaN or infinity'
        value = value.item() if value.numel() == 1 and key == 'step' else value
    if key == 'step' and not (_is_number(value) and value >= 0):
        return f'is {value!r}'
    return ''


def _optimizers(
    wrapper: OptimWrapper | OptimWrapperDict, saved: Any
) -> Iterator[tuple[str, OptimWrapper, Any]]:
    if isinstance(wrapper, OptimWrapperDict):
        for name, single in wrapper.items():
            yield name, single, saved.get(name) if isinstance(saved, Mapping) else None
    elif isinstance(wrapper, OptimWrapper):
        yield '', wrapper, saved


def _schedulers(schedulers: Any, saved: Any) -> Iterator[tuple[str, list, Any]]:
    if isinstance(schedulers, Mapping):
        for name, own in schedulers.items():
            yield name, own, saved.get(name) if isinstance(saved, Mapping) else None
    else:
        yield '', list(schedulers or ()), saved or ()
