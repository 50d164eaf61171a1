"""The learning rate's schedule follows the length of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from medic_mm.helpers import type_name

_LENGTHS = ('max_epochs', 'max_iters')
_OWN_LENGTHS = ('T_max', 'total_iters', 'total_steps')


def run_length(cfg: Config) -> tuple[str, int] | None:
    """``('max_epochs', 300)`` or ``('max_iters', 160000)`` of a config."""
    loop = cfg.get('train_cfg') or {}
    for name in _LENGTHS:
        if isinstance(loop.get(name), int):
            return name, loop[name]
    return None


def follow_length(
    cfg: Config, old: tuple[str, int] | None, options: Mapping[str, Any]
) -> list[str]:
    """Let the schedule end where the run ends, after options changed the run's length.

    Each scheduler that ended at the old length ends at the new one. Those before it,
    such as the warm-up, keep their length, and are left out where the run is not longer
    than they are; the next one then begins in their place. What the options set of a
    scheduler stays.

    Args:
        cfg: The config with the options, changed in place.
        old: :func:`run_length` before the options.
        options: What they set, by dotted keys.

    Returns:
        What was changed, for the log.
    """
    new, given = run_length(cfg), cfg.get('param_scheduler')
    if not given or old is None or new is None or old[0] != new[0] or old == new:
        return []
    notices = [f'train_cfg.{new[0]} is {new[1]} instead of {old[1]}:']
    schedulers = list(given) if isinstance(given, list) else [given]
    kept: list[dict] = []
    for index, scheduler in enumerate(schedulers):
        name = 'param_scheduler' + (f'.{index}' if isinstance(given, list) else '')
        title = f'{name} ({type_name(scheduler)})'
        # set as a whole, or a group of schedulers for each optimizer
        if 'param_scheduler' in options or 'type' not in scheduler:
            notices.append(f'{title} stays as it is')
        elif scheduler.get('by_epoch', True) != (new[0] == 'max_epochs'):
            notices.append(f'{title} counts otherwise and stays as it is')
        else:
            own = {key for key in scheduler if f'{name}.{key}' in options}
            reached = max((one.get('end', 0) for one in kept), default=0)
            notice, stays = _follow(scheduler, title, own, old[1], new[1], reached)
            notices.append(notice)
            if not stays:
                continue
        kept.append(scheduler)
    if isinstance(given, list):
        cfg.param_scheduler = kept
    elif not kept:
        cfg.param_scheduler = None
    return [' '.join([notices[0], '; '.join(notices[1:])])]


def _follow(
    scheduler: dict, title: str, own: set[str], old: int, new: int, reached: int
) -> tuple[str, bool]:
    """Change one scheduler: what was changed, and whether it stays."""
    begin, end = scheduler.get('begin', 0), scheduler.get('end')
    lengths = [
        key
        for key in _OWN_LENGTHS
        if scheduler.get(key) in (old, old - begin) and end in (None, old)
    ]
    to_the_end = end == old or (end is None and bool(lengths))
    if to_the_end:
        start = reached if begin >= new and 'begin' not in own else begin
        changes = {'end': new} if end is not None else {}
        longer = new - start - (old - begin)
        changes |= {key: scheduler[key] + longer for key in lengths}
        changes |= {'begin': start} if start != begin else {}
        scheduler.update({k: v for k, v in changes.items() if k not in own})
        begins = f'begins at {start} and ' if start != begin else ''
        return f'{title} {begins}ends at {new}', True
    if end is not None and end >= new and not own:
        left = f'{title} from {begin} to {end} is left out, the run is not longer'
        return left, False
    kept = 'stays as it is' if end is None else f'keeps {begin} to {end}'
    return f'{title} {kept}', True


def late_ends(cfg: Config) -> Iterator[str]:
    """A line for the log for each scheduler that the run ends before."""
    length, given = run_length(cfg), cfg.get('param_scheduler') or []
    for index, scheduler in enumerate(given if isinstance(given, list) else [given]):
        end = scheduler.get('end') if isinstance(scheduler, Mapping) else None
        if length is None or not isinstance(end, int):
            continue
        same = scheduler.get('by_epoch', True) == (length[0] == 'max_epochs')
        if same and end > length[1]:
            yield (
                f'param_scheduler.{index} ({type_name(scheduler)}) ends at {end}, but '
                f'train_cfg.{length[0]} is {length[1]}: its last value is not reached.'
            )
