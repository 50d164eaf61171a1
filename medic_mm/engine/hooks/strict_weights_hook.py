"""Nothing is loaded half: checkpoints and pre-trained parts are checked first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from medic_mm.checkpoints.backbone import fit_part
from medic_mm.checkpoints.openmmlab import load_pretrained, take_pretrained
from medic_mm.checkpoints.reading import find_weights
from medic_mm.checkpoints.sizes import recorded_grid
from medic_mm.checkpoints.strict import load_strictly, misfit
from medic_mm.engine.resume_state import (
    kept_settings,
    missing_state,
    optimizer_misfit,
    same_groups,
    schedulers_misfit,
    without_moments,
)
from medic_mm.errors import FileError, UserError
from medic_mm.helpers import listed, unwrapped
from medic_mm.registry import HOOKS

# what the Runner does to the names of a checkpoint
_REVISE = re.compile('^module.')
#: More names than these are given by their beginnings.
_MOST = 4


@HOOKS.register_module()
class StrictWeightsHook(Hook):
    """Refuses weights that do not fit the model, before the first step.

    OpenMMLab only warns of weights that are missing, left over or of another shape, and
    loads NaN and integers as they are. This hook looks at what ``load_from``,
    ``resume`` or ``tools/test.py`` read, and at each ``init_cfg`` of type Pretrained
    of any part of the model, which it loads in OpenMMLab's place. On resuming, the
    states of optimizer and schedulers have to fit as well.

    Our tools add this hook to every run; in a config it stands in ``default_hooks``, so
    that OpenMMLab's own tools check as well.

    Args:
        partial: Beginnings of names of weights that may be missing, left over or
            unfit: ``--resume-partial`` of ``tools/train.py``. The model keeps its own
            values for these, and the log names them. Where the optimizer's state does
            not fit for this reason, its moments start anew. None: all has to fit, as
            in tests.
    """

    # after PretrainedBackboneHook, before mmengine's EMA and our k-NN
    priority = 'HIGH'

    def __init__(self, partial: Sequence[str] | None = ()) -> None:
        self.partial = (partial,) if isinstance(partial, str) else tuple(partial or ())
        self._tolerant = partial is not None
        self._steps: list[tuple[str, nn.Module, dict[str, Any]]] = []
        self._replaced = False

    def before_run(self, runner: Runner) -> None:
        """Take the files of all parts away from OpenMMLab."""
        # parts first: a file of the whole model wins over that of a part
        for place, module in reversed(list(unwrapped(runner.model).named_modules())):
            for step in take_pretrained(module):
                self._steps.append((place, module, step))

    def before_train(self, runner: Runner) -> None:
        """Load the files of the parts, once all weights are drawn."""
        for place, module, step in () if self._replaced else self._steps:
            where = f'model.{place}'.rstrip('.')
            if not step.get('checkpoint'):
                raise UserError(f'{where}.init_cfg.checkpoint is not set: name a file')
            path = str(step['checkpoint'])
            inner = _below(self.partial, place)
            start = f'{place}.' if place else ''
            report, converted = load_pretrained(
                module,
                path,
                step.get('prefix'),
                place,
                inner,
                inner,
                lambda names, start=start: self._advice(start + x for x in names),
            )
            if converted:
                runner.logger.info(f'{path} is converted: {converted}.')
            runner.logger.info(
                f'{where} from {path}: {len(report.loaded)} weights loaded; '
                f'{report.differences()}.'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse what does not fit, before OpenMMLab loads it."""
        self._replaced = True
        path = _source(runner)
        resumed = bool(runner.cfg.get('resume'))
        if resumed and (lacking := missing_state(checkpoint)):
            raise FileError(
                f'checkpoint {path} cannot be resumed from, it lacks {lacking}: start '
                f'a run from its weights by --cfg-options load_from={path}'
            )
        if not isinstance(checkpoint.get('state_dict'), dict):
            # OpenMMLab would take the whole file for the weights
            checkpoint['state_dict'] = find_weights(path, checkpoint)
        self._check_weights(runner, checkpoint, path)
        if resumed:
            self._check_state(runner, checkpoint, path)

    def _check_weights(self, runner: Runner, checkpoint: dict, path: str) -> None:
        model = unwrapped(runner.model)
        state = _renamed(checkpoint['state_dict'], path)
        checkpoint['state_dict'] = state
        average = checkpoint.get('ema_state_dict')
        if isinstance(average, dict):
            self._check_average(model, average, path)
        own = model.state_dict()
        unknown = [
            beginning
            for beginning in self.partial
            if not any(name.startswith(beginning) for name in (*own, *state))
        ]
        if unknown:
            raise UserError(
                f'--resume-partial {listed(unknown)}: no weight of the model or of '
                f'{path} begins so'
            )
        dropped = self._unfit(own, state)
        for name in dropped:
            del state[name]
        origin = f'checkpoint {path}'
        backbone = getattr(model, 'backbone', None)
        notes: tuple[str, ...] = ()
        if isinstance(backbone, nn.Module):
            notes = _fit_positions(backbone, state, origin, path, checkpoint)
        names = [
            name
            for name in {**own, **state}
            if name not in own
            or name not in state
            or misfit(state[name], own[name], shapes=True)
        ]
        advice = self._advice(names)
        remedy = 'Give one that was trained with this config'
        remedy += f', or {advice}' if advice else ''
        report = load_strictly(
            model, state, origin, remedy, self.partial, self.partial, copy=False
        )
        for note in notes:
            runner.logger.warning(note)
        if report.missing or report.unexpected:
            runner.logger.warning(
                f'{path} is loaded in part, as --resume-partial says: the model keeps '
                f'{listed(report.missing)}; the file keeps '
                f'{listed((*report.unexpected, *dropped))}.'
            )

    def _check_average(self, model: nn.Module, average: dict, path: str) -> None:
        """Weights of mmengine's EMA hook: the same names below ``module.``."""
        found = {str(k).removeprefix('module.'): v for k, v in average.items()}
        found.pop('steps', None)
        for name in self._unfit(model.state_dict(), found):
            del found[name], average[f'module.{name}']
        origin = f'checkpoint {path}: its moving average (ema_state_dict)'
        load_strictly(model, found, origin, '', self.partial, self.partial, copy=False)

    def _check_state(self, runner: Runner, checkpoint: dict, path: str) -> None:
        anew = f'start a new run from its weights by --cfg-options load_from={path}'
        saved = checkpoint.get('optimizer')
        problem = optimizer_misfit(runner.optim_wrapper, saved)
        if problem and self.partial and same_groups(runner.optim_wrapper, saved):
            checkpoint['optimizer'] = without_moments(runner.optim_wrapper, saved)
            runner.logger.warning(
                f"The optimizer's moments start anew, since those of {path} do not "
                f'fit: {problem}.'
            )
        elif problem:
            raise FileError(
                f"checkpoint {path}: the optimizer's state does not fit ({problem}): "
                f'resume with the config of that run, or {anew}'
            )
        problem = schedulers_misfit(
            runner.param_schedulers, checkpoint.get('param_schedulers')
        )
        if problem:
            raise FileError(
                f'checkpoint {path}: its param_schedulers do not fit ({problem}): '
                f'resume with the config of that run, or {anew}'
            )
        if kept := kept_settings(runner, checkpoint):
            runner.logger.warning(
                f'The resumed run keeps settings of {path}, not those of the config: '
                f'{listed(kept)}.'
            )

    def _unfit(self, own: Mapping[str, Tensor], state: Mapping[str, Any]) -> list[str]:
        """Weights that may differ, and cannot be loaded."""
        return [
            name
            for name in state
            if name.startswith(self.partial)
            and name in own
            and misfit(state[name], own[name], shapes=True)
        ]

    def _advice(self, names: Iterable[str]) -> str:
        """How weights may differ; empty where none may."""
        names = [name for name in names if not name.startswith(self.partial)]
        if not self._tolerant or not names:
            return ''
        if len(names) > _MOST:
            names = sorted({'.'.join(name.split('.')[:2]) for name in names})
        if len(names) > _MOST:
            return 'name what may differ by --resume-partial NAMES'
        given = ' '.join([*self.partial, *names])
        return f'let these differ by --resume-partial {given}'


def _fit_positions(
    backbone: nn.Module,
    state: dict[str, Any],
    origin: str,
    path: str,
    checkpoint: Mapping[str, Any],
) -> tuple[str, ...]:
    """Positions of other images in a whole model's weights, as for a backbone's."""
    start = 'backbone.'
    part = {k[len(start) :]: v for k, v in state.items() if k.startswith(start)}
    if not part:
        return ()
    known = recorded_grid(path, checkpoint) if Path(path).is_file() else None
    fitted, notes = fit_part(backbone, part, origin, (None, known))
    for name in part:
        del state[start + name]
    state.update({start + name: value for name, value in fitted.items()})
    return notes


def _below(partial: Sequence[str], place: str) -> tuple[str, ...]:
    """Beginnings of names as a part of the model sees them."""
    start = f'{place}.' if place else ''
    inside = [name.removeprefix(start) for name in partial if name.startswith(start)]
    whole = [''] if start and any(start.startswith(name) for name in partial) else []
    return (*inside, *whole)


def _renamed(weights: dict[str, Any], path: str) -> dict[str, Any]:
    """Names as the Runner takes them: without ``module.`` of distributed training."""
    names = [_REVISE.sub('', str(name)) for name in weights]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise FileError(f'checkpoint {path} holds {listed(doubled)} twice')
    return dict(zip(names, weights.values(), strict=True))


def _source(runner: Runner) -> str:
    """The checkpoint that is loaded, for messages."""
    if given := runner.cfg.get('load_from'):
        return str(given)
    pointer = Path(runner.work_dir, 'last_checkpoint')
    return pointer.read_text().strip() if pointer.is_file() else 'that is loaded'
