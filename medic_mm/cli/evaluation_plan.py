"""Which benchmarks a pre-trained student can take, given the data there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from medic_mm.cli.evaluation_student import (
    PretrainedStudent,
    describe_network,
    has_layer_scale,
)
from medic_mm.errors import UserError

#: Tasks by their names on the command line, and how the table calls them.
SUITE = {
    'knn': 'k-NN',
    'linear': 'linear probe',
    'finetune': 'fine-tuning',
    'segmentation': 'segmentation',
}
# ImageNet's objects cannot be told from smaller images
_LEAST_IMAGENET_SIZE = 160


@dataclass(frozen=True)
class Dataset:
    """A data set that configs expect.

    Attributes:
        title: Its name in texts.
        folders: Where it may lie below the root of the data; the first is preferred.
        parts: Folders that it must have.
    """

    title: str
    folders: tuple[str, ...]
    parts: tuple[str, ...]


DATASETS = {
    'cifar10': Dataset('CIFAR-10', ('cifar10',), ('train', 'val')),
    'imagenet': Dataset('ImageNet-1K', ('imagenet',), ('train', 'val')),
    'camvid': Dataset(
        'CamVid',
        ('camvid',),
        tuple(f'{x}/{y}' for x in ('images', 'annotations') for y in ('train', 'test')),
    ),
    'ade20k': Dataset(
        'ADE20K',
        ('ADEChallengeData2016', 'ade/ADEChallengeData2016'),
        tuple(
            f'{x}/{y}'
            for x in ('images', 'annotations')
            for y in ('training', 'validation')
        ),
    ),
}
# Names of benchmark configs below configs/benchmarks; none: features computed once.
_CONFIGS: dict[tuple[str, str], str | None] = {
    ('knn', 'cifar10'): None,
    ('knn', 'imagenet'): None,
    ('linear', 'cifar10'): None,
    ('linear', 'imagenet'): 'classification/*_{family}_{probe}_[0-9]xb*_in1k.py',
    ('finetune', 'cifar10'): 'classification/*_{family}_[0-9]xb*_cifar10-*.py',
    ('finetune', 'imagenet'): 'classification/*_{family}_[0-9]xb*_in1k.py',
    ('segmentation', 'camvid'): 'segmentation/*_{family}_upernet_*_camvid-*.py',
    ('segmentation', 'ade20k'): 'segmentation/*_{family}_upernet_*_ade20k-*.py',
}
# what a family hands on: MEDiC trains its class token, MIM-HD does not
_PROBES = {'medic-pre': 'linear-cls', 'mimhd-pre': 'linear-cls-mean'}


@dataclass(frozen=True)
class Task:
    """One thing to run.

    Attributes:
        kind: Key of :data:`SUITE`.
        dataset: Key of :data:`DATASETS`.
        folder: Where the data lie.
        config: The benchmark config; None for features that are computed once.
        options: What ``--cfg-options`` changes in it, so that its network is the
            student's.
    """

    kind: str
    dataset: str
    folder: Path
    config: Path | None
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder, for example ``'finetune-cifar10'``."""
        return f'{self.kind}-{self.dataset}'

    @property
    def title(self) -> str:
        """For example ``'fine-tuning on CIFAR-10'``."""
        return title_of(self.kind, self.dataset)


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
    unknown = [name for name in given if name not in SUITE]
    if unknown or not given:
        raise UserError(
            f'--suite {",".join(given)}: choose from {", ".join(SUITE)}, with commas '
            'between them'
        )
    return [name for name in SUITE if name in given]


def make_plan(
    student: PretrainedStudent, suite: Sequence[str], data: Path, root: Path
) -> tuple[list[Task], list[LeftOut]]:
    """What can be run, and what is left out.

    Args:
        student: What is evaluated.
        suite: Keys of :data:`SUITE`.
        data: Folder of the data sets.
        root: Folder that holds ``configs``.

    Raises:
        UserError: for a root of the data that does not exist.
    """
    if not data.is_dir():
        raise UserError(f"--data: folder '{data}' does not exist")
    tasks, left_out = [], []
    for kind, dataset in sorted(_CONFIGS, key=lambda pair: list(SUITE).index(pair[0])):
        if kind not in suite:
            continue
        try:
            config = find_config(student, kind, dataset, root)
            folder = find_data(data, dataset)
        except LookupError as error:
            left_out.append(LeftOut(title_of(kind, dataset), str(error.args[0])))
        else:
            options = () if config is None else _options(student, config)
            tasks.append(Task(kind, dataset, folder, config, options))
    return tasks, left_out


def find_config(
    student: PretrainedStudent, kind: str, dataset: str, root: Path
) -> Path | None:
    """The benchmark config whose network is the student's, but for LayerScale.

    Args:
        student: What is evaluated.
        kind: Key of :data:`SUITE`.
        dataset: Key of :data:`DATASETS`.
        root: Folder that holds ``configs``.

    Returns:
        The config; None where features are computed once instead.

    Raises:
        LookupError: where none fits; its text is the reason.
    """
    pattern = _CONFIGS[kind, dataset]
    family = student.family
    if pattern is not None and student.network is not None:
        name = pattern.format(family=family, probe=_PROBES[family])
        for path in sorted((root / 'configs' / 'benchmarks').glob(name)):
            network = describe_network(Config.fromfile(path).model.backbone)
            if network == student.network:
                return path
    if kind in ('knn', 'linear'):
        if dataset == 'imagenet' and student.image_size < _LEAST_IMAGENET_SIZE:
            raise LookupError(f'the student takes images of {student.image_size} px')
        if student.network is None and not student.trusted:
            raise LookupError(f'{student.problem}; --config CONFIG would do')
        return None
    if student.network is None:
        raise LookupError(student.problem)
    raise LookupError(f'no config of the {family} family has a {student.title}')


def find_data(data: Path, dataset: str) -> Path:
    """The folder of a data set.

    Raises:
        LookupError: where it is missing or incomplete; its text is the reason.
    """
    wanted = DATASETS[dataset]
    for name in wanted.folders:
        folder = data / name
        if not folder.is_dir():
            continue
        missing = [part for part in wanted.parts if not (folder / part).is_dir()]
        if missing:
            raise LookupError(f'{folder} has no {" and no ".join(missing)}')
        return folder.absolute()
    raise LookupError(f'{data} has no {wanted.folders[0]}')


def title_of(kind: str, dataset: str) -> str:
    """For example ``'fine-tuning on CIFAR-10'``."""
    return f'{SUITE[kind]} on {DATASETS[dataset].title}'


def _options(student: PretrainedStudent, config: Path) -> tuple[str, ...]:
    """LayerScale of the student; how strong it started is in the weights."""
    backbone = Config.fromfile(config).model.backbone
    if has_layer_scale(backbone) == has_layer_scale(student.backbone):
        return ()
    value = student.backbone.get('layer_scale_init_value', 0.0)
    return (f'model.backbone.layer_scale_init_value={value}',)
