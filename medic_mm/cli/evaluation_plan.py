"""What an evaluation runs: the student, and a recipe for each task and data set.

A recipe is a benchmark config. It is chosen by its content (data set, head, readout),
not by its file name, and takes the network of the student: architecture, patch size,
heads and LayerScale come from the checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.cli.evaluation_inputs import (
    DATASETS,
    SIZES,
    Dataset,
    PretrainedStudent,
    describe_network,
    has_layer_scale,
    own_changes,
    own_images,
    read_data,
)
from medic_mm.cli.knn import find_dataloaders
from medic_mm.errors import UserError
from medic_mm.helpers import type_name

#: Tasks by their names on the command line, and how the table calls them.
SUITE = {
    'knn': 'k-NN',
    'linear': 'linear probe',
    'finetune': 'fine-tuning',
    'segmentation': 'segmentation',
}
# students of smaller images take the recipes of laptop size
_LARGE = 160
# what a probe reads: MEDiC trains the class token, the others the patch tokens
_PROBES = {'medic-pre': ['cls'], 'mimhd-pre': ['cls', 'mean']}


@dataclass(frozen=True)
class Task:
    """One thing to run.

    Attributes:
        kind: Key of :data:`SUITE`.
        data: The data set.
        folder: Where the data lie.
        config: The benchmark config; None for features that are computed once.
        changes: Settings of the config that differ for this student or these data.
    """

    kind: str
    data: Dataset
    folder: Path
    config: Path | None
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder, for example ``'finetune-cifar10'``."""
        return f'{self.kind}-{self.data.name}'

    @property
    def title(self) -> str:
        """For example ``'fine-tuning on CIFAR-10'``."""
        return f'{SUITE[self.kind]} on {self.data.title}'


@dataclass(frozen=True)
class LeftOut:
    """A task that is not run, and why."""

    title: str
    reason: str


def check_suite(suite: Sequence[str]) -> list[str]:
    """The tasks in their order, each once.

    Raises:
        UserError: for a task that there is not, or none at all.
    """
    given = [name.strip() for name in suite]
    if not given or not set(given) <= set(SUITE):
        raise UserError(
            f'--suite {",".join(given)}: choose from {", ".join(SUITE)}, with commas '
            'between them'
        )
    return [name for name in SUITE if name in given]


def make_plan(
    student: PretrainedStudent,
    suite: Sequence[str],
    data: Path | Sequence[str | Path],
    root: Path,
) -> tuple[list[Task], list[LeftOut]]:
    """What can be run, and what is left out; arguments as of ``evaluate``.

    Raises:
        UserError: for a folder that does not exist or is not a data set.
    """
    roots, named = read_data([data] if isinstance(data, (str, Path)) else data)
    sets = {**(DATASETS if roots else {}), **named}
    tasks, left_out = [], []
    for kind in suite:
        for found in sets.values():
            if kind not in found.kinds:
                continue
            task = Task(kind, found, Path(), None, {})
            try:
                config, changes = _find_recipe(student, kind, found, root)
                task = Task(kind, found, found.find(roots), config, changes)
            except LookupError as error:
                left_out.append(LeftOut(task.title, str(error.args[0])))
            else:
                tasks.append(task)
    return tasks, left_out


@dataclass(frozen=True)
class Recipe:
    """A benchmark config: file, task, data set, and the students it is for."""

    path: Path
    config: Config
    kind: str
    data: str
    family: str
    network: dict[str, Any]


@functools.cache
def _recipes(folder: Path) -> tuple[Recipe, ...]:
    """All benchmark configs below a folder that a task of :data:`SUITE` can use."""
    files = sorted(folder.rglob('*.py'))
    return tuple(x for file in files if (x := _recipe(file)) is not None)


def _recipe(path: Path) -> Recipe | None:
    cfg = Config.fromfile(path)
    model = cfg.get('model') or {}
    loaders = [cfg.get(f'{x}_dataloader') for x in ('train', 'test')]
    if None in loaders or 'backbone' not in model:
        return None
    # few labels, and tests on other data than those of training, are no task here
    if any(loaders[0].dataset.get(x) for x in ('per_class', 'indices', 'ann_file')):
        return None
    places = {Path(x.dataset.get('data_root') or '').name for x in loaders}
    data = next((n for n, x in DATASETS.items() if places == {x.places[0]}), None)
    scaled = has_layer_scale(model.backbone)
    if 'decode_head' in model:
        kind = 'segmentation'
    elif type_name(model.get('head')) != 'LinearClsHead':
        return None
    elif model.backbone.get('frozen_stages', -1) > 0:
        kind = 'linear'
    else:
        kind, scaled = 'finetune', model.backbone.get('out_type') == 'cls_token'
    family = 'medic-pre' if scaled else 'mimhd-pre'
    if data is None or (
        kind == 'linear' and list(model.neck.features) != _PROBES[family]
    ):
        return None
    return Recipe(path, cfg, kind, data, family, describe_network(model.backbone))


def _find_recipe(
    student: PretrainedStudent, kind: str, data: Dataset, root: Path
) -> tuple[Path | None, dict[str, Any]]:
    """The benchmark config for a task, and what differs in it; see :class:`Task`.

    Raises:
        LookupError: where none fits; its text is the reason.
    """
    large, own = student.image_size >= _LARGE, data.large is None
    names = [x.name for x in DATASETS.values() if x.large == large or not own]
    fitting = [
        x
        for x in _recipes((root / 'configs' / 'benchmarks').absolute())
        if (x.kind, x.family) == (kind, student.family)
        and x.data in (names if own else [data.name])
    ]
    exact = [x for x in fitting if x.network == student.network]
    other_size = f'the student takes images of {student.image_size} px'
    if kind == 'knn' or (kind == 'linear' and not (data.large and exact)):
        if data.large and not large:
            raise LookupError(other_size)
        if student.network is None and not student.trusted:
            raise LookupError(f'{student.problem}; --config CONFIG would do')
        return None, {}
    if student.network is None:
        raise LookupError(student.problem)
    if not (own or exact or data.large == large):
        raise LookupError(f'{other_size}, its configs are for other sizes')
    wanted = _without_sizes(student.network)
    near = exact or [x for x in fitting if _without_sizes(x.network) == wanted]
    if not near:
        raise LookupError(
            f'no config of the {student.family} family fits a {student.title}'
        )
    width = student.network['embed_dim']
    recipe = min(near, key=lambda x: abs(x.network['embed_dim'] - width))
    changes = _network_changes(student, recipe)
    if own:
        changes.update(own_changes(data, kind, recipe.config))
    return recipe.path, changes


def _without_sizes(network: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key not in SIZES}


def _network_changes(student: PretrainedStudent, recipe: Recipe) -> dict[str, Any]:
    """The network of the student in place of the recipe's, by dotted keys."""
    model, changes = recipe.config.model, {}
    if has_layer_scale(model.backbone) != has_layer_scale(student.backbone):
        # how strong it started is in the weights
        value = student.backbone.get('layer_scale_init_value', 0.0)
        changes['model.backbone.layer_scale_init_value'] = value
    ours, theirs = student.network, recipe.network
    if ours == theirs:
        return changes
    width, depth, patch = (ours[key] for key in ('embed_dim', 'depth', 'patch_size'))
    changes['model.backbone.arch'] = dict(
        _delete_=True,
        embed_dims=width,
        num_layers=depth,
        num_heads=ours['num_heads'],
        feedforward_channels=int(width * ours['mlp_ratio']),
    )
    changes['model.backbone.patch_size'] = patch
    if recipe.kind == 'finetune':
        return {**changes, 'model.head.in_channels': width}
    if depth < 4:
        raise LookupError(f'UperNet reads four blocks, the student has {depth}')
    blocks = [
        round((x + 1) * depth / theirs['depth']) - 1 for x in model.backbone.out_indices
    ]
    if len(set(blocks)) < 4:
        blocks = list(range(depth - 4, depth))
    changes['model.backbone.out_indices'] = blocks
    # strides 4 to 32 from patches of 16, 8 to 64 or so from other patches
    changes['model.neck.rescales'] = [4, 2, 1, 0.5] if patch > 11 else [2, 1, 0.5, 0.25]
    changes['model.neck.embed_dim'] = width
    changes['model.decode_head.in_channels'] = [width] * 4
    changes['model.auxiliary_head.in_channels'] = width
    if model.decode_head.channels == theirs['embed_dim']:
        changes['model.decode_head.channels'] = width
    return changes


def features_config(
    student: PretrainedStudent, data: Dataset, folder: Path, root: Path
) -> Config:
    """The student with data of its image size, for ``medic-mm knn`` and ``probe``."""
    size, own = student.image_size, data.large is None
    large = size >= _LARGE if own else data.large
    base = 'imagenet_bs256_medic.py' if large else 'cifar10-64px_bs100_medic.py'
    base = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / base)
    loaders = {}
    for split, loader in zip(('train', 'test'), find_dataloaders(base), strict=True):
        dataset = loader['dataset']
        for transform in dataset['pipeline']:
            # the short side against the crop, as evaluation on ImageNet has it
            scale = dict(Resize=size, ResizeEdge=round(size * 256 / 224))
            if transform['type'] in scale:
                transform['scale'] = scale[transform['type']]
            elif transform['type'] == 'CenterCrop':
                transform['crop_size'] = size
        if own:
            part = 'train' if split == 'train' else 'val'
            dataset = own_images(folder, part, dataset['pipeline'])
        dataset['data_root'] = str(folder)
        loaders[f'knn_{split}_dataloader'] = dict(loader, dataset=dataset)
    seed = (student.settings.get('randomness') or {}).get('seed') or 0
    return Config(
        dict(
            default_scope='mmpretrain',
            **_features_model(student),
            randomness=dict(seed=seed),
            **loaders,
        )
    )


def _features_model(student: PretrainedStudent) -> dict[str, Any]:
    """The settings from which a student is built for its features."""
    settings, model = student.settings, student.settings['model']
    preprocessor = (
        model.get('data_preprocessor') or settings.get('data_preprocessor') or {}
    )
    if not student.trusted:
        # a registry builds any function that a type names, so a downloaded checkpoint
        # gives plain numbers and a backbone that is known
        numbers = ('mean', 'std', 'to_rgb')
        preprocessor = {x: preprocessor[x] for x in numbers if x in preprocessor}
        preprocessor['type'] = 'medic_mm.HostSamplesPreprocessor'
        backbone = {k: v for k, v in student.backbone.items() if k != 'init_cfg'}
        return dict(model=dict(backbone=backbone, data_preprocessor=preprocessor))
    kept = {k: model[k] for k in ('backbone', 'init_cfg') if model.get(k) is not None}
    found: dict[str, Any] = dict(model=dict(kept, data_preprocessor=preprocessor))
    if settings.get('custom_imports'):
        found['custom_imports'] = settings['custom_imports']
    return found
