"""Start a network, or a part of one, from a file: ``init_cfg`` of type Pretrained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from medic_mm.checkpoints.backbone import beginnings, load_part
from medic_mm.checkpoints.grid import recorded_grid
from medic_mm.checkpoints.key_maps import convert_weights
from medic_mm.checkpoints.loading import find_weights, read_checkpoint
from medic_mm.checkpoints.openmmlab import local_file
from medic_mm.checkpoints.strict import LoadReport
from medic_mm.errors import FileError, UserError
from medic_mm.helpers import type_name

#: Layouts that a network of OpenMMLab may have.
_TARGETS = ('mmpretrain', 'mmseg')


def take_pretrained(module: nn.Module) -> list[dict[str, Any]]:
    """Take the steps that load a file out of a module's ``init_cfg``.

    OpenMMLab would load them without checking, and backbones that draw weights of
    their own would draw over what was loaded.

    Returns:
        The steps, in their order.
    """
    steps = getattr(module, 'init_cfg', None)
    steps = [steps] if isinstance(steps, Mapping) else list(steps or ())
    taken = [dict(step) for step in steps if is_pretrained(step)]
    if taken:
        kept = [step for step in steps if not is_pretrained(step)]
        module.init_cfg = kept or None  # type: ignore[assignment]
    return taken


def is_pretrained(step: Any) -> bool:
    """Whether a step of ``init_cfg`` loads a file."""
    return type_name(step) in ('Pretrained', 'PretrainedInit')


def load_pretrained(
    module: nn.Module,
    path: str,
    prefix: str | None = None,
    place: str = 'backbone',
    new: Sequence[str] = (),
    left: Sequence[str] = (),
    advice: Callable[[Iterable[str]], str] = lambda names: '',
) -> tuple[LoadReport, str]:
    """Load a file into a module, strictly; names of other code bases are converted.

    Args:
        module: The module.
        path: The file, or an address that OpenMMLab knows.
        prefix: Start of the names to load; ``''`` or None takes all.
        place: Where the module stands in its model; a converted file has the weights
            of a backbone below ``backbone.``.
        new: Beginnings of names that may be missing in the file.
        left: Beginnings of names that the file may have beyond the module.
        advice: From names that differ to what else the user can do.

    Returns:
        What was loaded, and how the file was converted: ``''`` where it was not.

    Raises:
        FileError: for a file that does not fit; names the weights.
    """
    file = local_file(path)
    content = read_checkpoint(file, mmap=True)
    weights = find_weights(file, content)
    prefix = f'{prefix}.' if prefix and not prefix.endswith('.') else prefix or ''
    own = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    load = partial(
        load_part,
        module,
        origin=f'checkpoint {path}',
        grids=(None, recorded_grid(file, content)),
        remedy=lambda missing, unexpected: '; '.join(
            filter(
                None,
                (
                    _remedy(set(own), set(module.state_dict()), missing, unexpected),
                    advice([*sorted(missing), *sorted(unexpected)]),
                ),
            )
        ),
        new=new,
        left=left,
    )
    try:
        if own:
            return load(own), ''
        raise FileError(
            f'checkpoint {path} has no weights below prefix={prefix!r}: its names '
            f'begin with {beginnings(weights)}'
        )
    except FileError as error:
        problem = error
    foreign = not set(own) & set(module.state_dict())
    for target in _TARGETS:
        try:
            found, summary = _converted(weights, target, place)
            return load(found, origin=f'checkpoint {path}, converted,'), summary
        except FileError as error:
            problem, foreign = error if foreign else problem, False
        except ValueError as error:
            if foreign and target == _TARGETS[0]:
                problem = FileError(f'{problem}, and it cannot be converted: {error}')
    raise problem


def _converted(
    weights: Mapping[str, Tensor], target: str, place: str
) -> tuple[dict[str, Tensor], str]:
    """Weights under the names that the module may have, and how they were made."""
    done = convert_weights(weights, 'auto', target)
    start = f'{place.rpartition(".")[2]}.' if place and target == 'mmpretrain' else ''
    found = {
        name.removeprefix(start): value
        for name, value in done.weights.items()
        if name.startswith(start)
    }
    if not found:
        raise UserError(f'nothing in it belongs to {place}')
    return found, done.summary()


def _remedy(
    given: set[str], wanted: set[str], missing: set[str], unexpected: set[str]
) -> str:
    """The likely cause, where names tell it."""
    if any('relative_position' in name for name in unexpected):
        return (
            'Pre-training had relative positions: use the config beit-*_medic-pre_*, '
            "whose backbone is mmpretrain's BEiTViT"
        )
    if any('relative_position' in name for name in missing):
        return (
            'Pre-training had absolute positions: use the config vit-*, whose '
            "backbone is mmpretrain's VisionTransformer"
        )
    if missing and all('gamma' in name for name in missing):
        return (
            'Pre-training had no LayerScale: set '
            'model.backbone.layer_scale_init_value=0'
        )
    if unexpected and all('gamma' in name for name in unexpected):
        return (
            'Pre-training had LayerScale: set model.backbone.layer_scale_init_value '
            'to its value, 0.1 for MEDiC'
        )
    below = Counter(
        name.partition('.')[0] for name in given if name.partition('.')[2] in wanted
    )
    if below and missing:
        return f'The names of the file begin with {next(iter(below))}.: set prefix'
    if any(name.startswith(('layers.', 'blocks.')) for name in unexpected):
        return 'It is of another architecture, or in another layout of names'
    return ''
