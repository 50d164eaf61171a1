"""``--check``: all that a training needs, looked at before anything starts."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.models.teachers.hub import hub_address, kept_file, unreachable
from medic_mm.models.teachers.loading import names_a_file
from medic_mm.models.teachers.open_clip_source import resolve_tower
from medic_mm.settings.needs import disk_need, memory_need
from medic_mm.settings.options import read_places

# Images that are read of each loader: enough to run all of its pipeline.
_IMAGES = 8
_HUB_FILES = (
    'open_clip_model.safetensors',
    'open_clip_pytorch_model.bin',
    'model.safetensors',
    'pytorch_model.bin',
)
_NOT_FOR_TRAINING = ('test_dataloader', 'knn_train_dataloader', 'knn_test_dataloader')


class Readiness:
    """What a check found; true where nothing is missing, and a list as its text."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.perf_counter()
        self.found: list[str] = []
        self.missing: list[str] = []

    def __bool__(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.start
        lines = [f'{self.title} ({seconds:.0f} s)']
        lines += [f'  ok       {line}' for line in self.found]
        lines += [f'  MISSING  {line}' for line in self.missing]
        count = len(self.missing)
        things = 'thing is' if count == 1 else 'things are'
        return '\n'.join([*lines, f'{count} {things} missing' if count else 'ready'])

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails inside is missing, and the next part is looked at."""
        try:
            yield
        except UserError as error:
            self.missing += _named(name, str(error))
        except Exception as error:
            reason = ' '.join(str(error).split())[:400]
            self.missing.append(f'{name}: {type(error).__name__}: {reason}')


def _named(name: str, text: str) -> list[str]:
    return [line if name in line else f'{name}: {line}' for line in text.splitlines()]


def check_config(cfg: Config, ready: Readiness, processes: int = 1) -> None:
    """Look at data, classes, teacher, model, memory and disk of a training.

    Args:
        cfg: The config as the training will use it.
        ready: Takes what is found and what is missing.
        processes: How many processes will share the data.
    """
    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    datasets: dict[str, Any] = {}
    batch = None
    for place, settings in _loaders(cfg):
        with ready.part(place):
            datasets[place], found = _check_loader(place, settings, ready, processes)
            batch = found if place == 'train_dataloader' else batch
    with ready.part('classes'):
        _check_classes(datasets, ready)
    for place, settings in read_places(cfg):
        with ready.part('.'.join(place)):
            _check_weights('.'.join(place), place[-1], settings, ready)
    model: nn.Module | None = None
    with ready.part('model'):
        model = _build_model(cfg)
    if model is not None:
        images = datasets.get('train_dataloader')
        with ready.part('memory'):
            memory_need(model, cfg, batch, ready)
        with ready.part('disk'):
            disk_need(model, cfg, 0 if images is None else len(images), ready)


def _loaders(cfg: Config) -> Iterator[tuple[str, dict]]:
    """The loaders that a training uses, also those of hooks."""
    for place, node in read_places(cfg):
        is_loader = place[-1].endswith('_dataloader') and isinstance(node, Mapping)
        trains = len(place) > 1 or place[0] not in _NOT_FOR_TRAINING
        if is_loader and trains and 'dataset' in node:
            yield '.'.join(place), node  # type: ignore[misc]


def _check_loader(
    place: str, settings: dict, ready: Readiness, processes: int
) -> tuple[Any, Any]:
    """Build a loader's data set, count its images and steps, and read a batch."""
    from medic_mm.datasets.class_lists import check_settings

    check_settings(settings['dataset'])
    dataset = DATASETS.build(copy.deepcopy(settings['dataset']))
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    images, batch_size = len(dataset), settings.get('batch_size', 1)
    if images == 0:
        raise UserError(f'{place}: {type_name(settings["dataset"])} has no images')
    draft = copy.deepcopy({k: v for k, v in settings.items() if k != 'dataset'})
    for name in ('persistent_workers', 'prefetch_factor', 'pin_memory'):
        draft.pop(name, None)
    draft.update(
        dataset=dataset, batch_size=min(batch_size, _IMAGES, images), num_workers=0
    )
    loader = Runner.build_dataloader(draft, seed=0)
    trained = place == 'train_dataloader'
    share = -(-images // processes) if trained else images
    steps = share // batch_size if loader.drop_last else -(-share // batch_size)
    if steps == 0:
        raise UserError(
            f'{place} has {images} images, {share} for each process, fewer than '
            f'batch_size={batch_size} with drop_last=True: set {place}.batch_size='
            f'{share} or less, or {place}.drop_last=False'
        )
    start = time.perf_counter()
    batch = next(iter(loader))
    seconds = time.perf_counter() - start
    times = f'{processes} x {batch_size}' if trained and processes > 1 else batch_size
    epoch = ' an epoch' if trained else ''
    ready.found.append(
        f'{place}: {images:,} images, {steps:,} steps of {times}{epoch}; '
        f'{draft["batch_size"]} read in {seconds:.1f} s'
    )
    return dataset, batch


def _check_classes(datasets: dict[str, Any], ready: Readiness) -> None:
    """Train and validation data, and the two sides of a hook's k-NN, in turn."""
    from medic_mm.datasets.class_lists import compare_classes

    groups: dict[str, dict[str, Any]] = {}
    for place, dataset in datasets.items():
        groups.setdefault(place.rpartition('.')[0], {})[place] = dataset
    for place, group in groups.items():
        if len(group) > 1 and (count := compare_classes(group)):
            names = ' and '.join(name.rpartition('.')[2] for name in group)
            ready.found.append(f'{place or "classes"}: {count} in {names}')


def _check_weights(place: str, key: str, settings: Any, ready: Readiness) -> None:
    """A teacher's weights, and other files that a config names."""
    file = None
    if key in ('load_from', 'checkpoint') and isinstance(settings, str):
        file = settings if '://' not in settings else None
    elif isinstance(settings, Mapping) and type_name(settings).endswith('Teacher'):
        weights = settings.get('weights')
        if settings.get('random_weights') or 'teacher' in settings:
            return
        if weights is None:
            raise UserError(f'{place}.weights is not set: the teacher has no weights')
        repository, address = _hub_of(settings)
        if address is None:
            place, file = f'{place}.weights', weights
        elif repository and kept_file(repository, _HUB_FILES):
            ready.found.append(f'{place}: weights of {repository} are in the cache')
        elif reason := unreachable(address):
            raise UserError(
                f'{place}: the weights {weights!r} are not on this machine, and '
                f'{address} cannot be reached ({reason}): fetch them on another '
                f'machine and give the file by {place}.weights=PATH'
            )
        else:
            ready.found.append(f'{place}: {address} answers, weights will be fetched')
    if file and not Path(file).expanduser().is_file():
        raise UserError(f'{place}={file}: there is no such file')
    if file:
        ready.found.append(f'{place}: {file}')


def _hub_of(settings: Mapping) -> tuple[str | None, str | None]:
    """Repository and address that a teacher's weights come from; None for a file."""
    weights = settings['weights']
    if names_a_file(weights):
        return None, None
    if type_name(settings) == 'TimmTeacher':
        found = timm.get_pretrained_cfg(settings['model'])
        source = {} if found is None else found.to_dict()
        name = source.get('hf_hub_id')
    elif type_name(settings) == 'OpenCLIPTeacher':
        source = resolve_tower(settings['model'], weights, None).tag_config
        name = source.get('hf_hub')
    else:
        return None, None
    name = name and name.strip('/')
    return name, hub_address(name) if name else source.get('url')


def _build_model(cfg: Config) -> nn.Module:
    """The model, as the Runner builds it; its weights are not loaded."""
    settings = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return MODELS.build(settings)
