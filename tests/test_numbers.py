"""Every numeric argument of every component refuses what is not a number in its range.

Components come from the registries and arguments from their signatures, so a new one is
in by itself: it needs an entry in ``MINIMAL``, and in ``LEGAL`` for what is odd and yet
right.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import Registry
from PIL import Image
from tiny import medic_config
from tiny_mimhd import mimhd_config

import medic_mm.registry
from medic_mm.errors import UserError

REGISTRIES = {
    name: registry
    for name, registry in vars(medic_mm.registry).items()
    if isinstance(registry, Registry) and registry.scope == 'medic_mm'
}
HEADS = dict(student_heads=3, teacher_heads=3)
VIT = dict(medic_config()['backbone'])
VIT.pop('type'), VIT.pop('encoding')
MASK = dict(grid=4, mask_ratio=0.4)
LOADER = dict(batch_size=2, dataset=dict(type='ImageFolder'))


def part(config: dict, name: str) -> dict:
    return {key: value for key, value in config[name].items() if key != 'type'}


def whole(config: dict) -> dict:
    return {key: value for key, value in config.items() if key != 'type'}


# what each component is built from; numbers that are left out have their defaults
MINIMAL: dict[str, dict[str, Any]] = dict(
    AdaptiveMatching=HEADS,
    AverageMatching=HEADS,
    CachedTeacher=dict(teacher=dict(type='medic_mm.TinyTeacher')),
    ClsAlignmentLoss={},
    DualViewDecoder=part(mimhd_config(), 'neck'),
    EvolvedMasking=dict(
        method='em',
        progress=(0, 4),
        schedule=dict(gamma=0.2, clusters=(8, 3), spread=1),
    ),
    HostSamplesPreprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]),
    LayerProbeHead=dict(num_classes=3, in_channels=4, num_layers=2),
    MAETeacher=part(mimhd_config(), 'target_generator'),
    MEDiC=whole(medic_config()),
    MEDiCHead=dict(
        part(medic_config(), 'head'), weights=dict(token=1.0, cls=0.3, pixel=0.01)
    ),
    MIMHD=whole(mimhd_config()),
    MIMHDHead=part(mimhd_config(), 'head'),
    MaskedViT=VIT,
    OneToOneMatching=HEADS,
    OpenCLIPTeacher=dict(
        model=dict(
            embed_dim=24,
            vision_cfg=dict(
                layers=2, width=32, head_width=16, patch_size=8, image_size=32
            ),
        ),
        random_weights=True,
        output_grid=(2, 2),
    ),
    ProbeNeck=dict(embed_dims=8),
    RelationHeadMatching=HEADS,
    RelationViT=VIT,
    SelectMatching=dict(HEADS, heads=[0, 1, 2]),
    TimmTeacher=dict(model='test_vit', random_weights=True, output_grid=(2, 2)),
    TokenDistillationLoss={},
    EmbeddedShapes=dict(length=4, img_size=32),
    ImageFolder=dict(data_root='FOLDER'),
    BlockMask=dict(MASK, min_area=2),
    GridMask=MASK,
    RandomMask=MASK,
    FixedView=dict(transforms=[]),
    LoadReadableImage={},
    AtomicCheckpointHook={},
    ClassesHook={},
    KNNHook=dict(train_dataloader=LOADER, test_dataloader=LOADER),
    PanelHook=dict(dataset=dict(type='ImageFolder')),
    PretrainedBackboneHook={},
    SegmentationLabelsHook={},
    SkippedImagesHook={},
    StopOnNaNHook={},
    StrictWeightsHook={},
    TeacherCacheHook={},
    LayerAccuracy={},
    SubsetAccuracy=dict(classes=[0, 1]),
    LayerDecayOptimWrapperConstructor=dict(
        optim_wrapper_cfg=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        paramwise_cfg=dict(layer_decay_rate=0.65),
    ),
)

# arguments inside dictionaries, which no signature shows
NESTED: dict[str, dict[str, str]] = dict(
    EvolvedMasking={
        'schedule.gamma': 'float',
        'schedule.clusters': 'Sequence[int]',
        'schedule.spread': 'int',
    },
    MAETeacher={
        **{f'arch.{key}': 'int' for key in mimhd_config()['target_generator']['arch']},
        **{f'decoder.{key}': 'int' for key in ('embed_dims', 'depth', 'num_heads')},
    },
    MEDiCHead={f'weights.{key}': 'float' for key in ('token', 'cls', 'pixel')},
    MIMHDHead={f'weights.{key}': 'float' for key in ('qk', 'vv', 'pixel')},
    MaskedViT={f'arch.{key}': 'int' for key in VIT['arch']},
    RelationViT={f'arch.{key}': 'int' for key in VIT['arch']},
    OpenCLIPTeacher={
        f'model.vision_cfg.{key}': 'int'
        for key in ('layers', 'width', 'head_width', 'patch_size', 'image_size')
    },
    LayerDecayOptimWrapperConstructor={'paramwise_cfg.layer_decay_rate': 'float'},
)

NAN, INF = math.nan, math.inf
BAD = [NAN, INF, -INF, True, '3', -1, 0]
# of these, what is right; docstrings say so
LEGAL: dict[str, list] = {
    'CachedTeacher.in_memory_gb': [INF, 0],
    'HostSamplesPreprocessor.mean': [-1, 0],
    'HostSamplesPreprocessor.pad_value': [-1, 0],
    'EvolvedMasking.mask_ratio': [0],  # refused when the grid is known
    'EvolvedMasking.progress': [0],
    'EvolvedMasking.schedule.gamma': [0],
    'EvolvedMasking.schedule.spread': [0],
    'MEDiCHead.weights.token': [0],
    'MEDiCHead.weights.cls': [0],
    'MEDiCHead.weights.pixel': [0],
    'MIMHDHead.weights.qk': [0],
    'MIMHDHead.weights.vv': [0],
    'MIMHDHead.weights.pixel': [0],
    'OpenCLIPTeacher.layer': [-1, 0],
    'TimmTeacher.layer': [-1, 0],
    'ProbeNeck.num_extra_tokens': [0],
    'SelectMatching.heads': [0],
    'EmbeddedShapes.seed': [0],
    'EmbeddedShapes.indices': [-1, 0],  # mmengine: the last ones, none
    'ImageFolder.draw_seed': [0],
    'FixedView.seed': [0],
    'EmbeddedShapes.max_refetch': [0],
    'ImageFolder.max_refetch': [0],
    'AtomicCheckpointHook.interval': [-1],
    'AtomicCheckpointHook.max_keep_ckpts': [-1],
    'AtomicCheckpointHook.save_begin': [0],
    'SkippedImagesHook.max_names': [0],
    'SkippedImagesHook.max_unreadable': [0],
    'SubsetAccuracy.classes': [0],
    'TeacherCacheHook.num_workers': [0],
    'TeacherCacheHook.verify_samples': [0],
    **{
        f'{vit}.{name}': values
        for vit in ('MaskedViT', 'RelationViT')
        for name, values in dict(
            drop_rate=[0],
            drop_path_rate=[0],
            layer_scale_init_value=[0],
            out_indices=[-1, 0],
            frozen_stages=[-1, 0],
        ).items()
    },
}


def own_components() -> Iterator[tuple[Registry, str, type]]:
    for registry in REGISTRIES.values():
        registry.import_from_location()
        for name, component in sorted(registry.module_dict.items()):
            if component.__module__.startswith('medic_mm.'):
                yield registry, name, component


def numeric_arguments(component: type) -> dict[str, str]:
    """Names of arguments to ``'int'``, ``'float'`` or ``'Sequence[...]'``."""
    found: dict[str, str] = {}
    for owner in component.__mro__:
        if '__init__' not in vars(owner) or owner is object:
            continue
        parameters = inspect.signature(owner.__init__).parameters.values()
        for parameter in parameters:
            kind = numeric_kind(parameter)
            if kind and parameter.name not in found:
                found[parameter.name] = kind
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break  # what comes further up cannot be given
    return {**found, **NESTED.get(component.__name__, {})}


def numeric_kind(parameter: inspect.Parameter) -> str:
    text, default = str(parameter.annotation), parameter.default
    if re.search(r'dict|Mapping|Callable', text):
        return ''
    kinds = set(re.findall(r'\b(int|float|Number)\b', text))
    if not kinds and type(default) in (int, float):
        kinds = {type(default).__name__}
    if not kinds:
        return ''
    kind = 'float' if kinds - {'int'} else 'int'
    many = re.search(r'Sequence|tuple|list', text, re.IGNORECASE)
    return f'Sequence[{kind}]' if many else kind


def changed(settings: dict, path: str, kind: str, value: Any) -> dict:
    settings = copy.deepcopy(settings)
    target = settings
    *keys, last = path.split('.')
    for key in keys:
        target = target[key]
    if kind.startswith('Sequence') and isinstance(target.get(last), (list, tuple)):
        rest = list(target[last])[1:]
        value = [value, *rest]
    target[last] = value
    return settings


def cases() -> list:
    found = []
    for registry, name, component in own_components():
        for path, kind in numeric_arguments(component).items():
            found.append(pytest.param(registry, name, path, kind, id=f'{name}.{path}'))
    return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('images')
    for name in ('ant', 'bee'):
        (root / name).mkdir()
        for index in range(3):
            Image.new('RGB', (32, 32)).save(root / name / f'{index}.png')
    return root


def settings_of(name: str, folder: Path) -> dict:
    settings = copy.deepcopy(MINIMAL[name])
    if settings.get('data_root') == 'FOLDER':
        settings['data_root'] = str(folder)
    return settings


def test_every_component_has_an_entry():
    names = {name for _, name, _ in own_components()}
    assert names == set(MINIMAL)
    known = {case.id for case in cases()}
    assert set(LEGAL) <= known, 'entries that name no argument'
    assert len(known) > 100


@pytest.mark.parametrize('name', MINIMAL)
def test_the_entries_can_be_built(name, folder):
    registry = next(r for r, own, _ in own_components() if own == name)
    assert build(registry, name, settings_of(name, folder)) is not None


def build(registry: Registry, name: str, settings: dict) -> Any:
    if name == 'LayerDecayOptimWrapperConstructor':
        return registry.get(name)(**settings)
    return registry.build(dict(type=f'medic_mm.{name}', **settings))


@pytest.mark.parametrize(('registry', 'name', 'path', 'kind'), cases())
def test_what_is_not_a_number_is_refused(registry, name, path, kind, folder):
    legal = LEGAL.get(f'{name}.{path}', [])
    values = [*BAD, 2.5] if 'int' in kind else BAD
    wrong = []
    for value in values:
        if value is not True and value in legal:
            continue
        settings = changed(settings_of(name, folder), path, kind, value)
        try:
            build(registry, name, settings)
        except UserError as error:
            said = str(error)
            last = path.rpartition('.')[2]
            if last not in said or (str(value) not in said) or '\n' in said:
                wrong.append((value, 'unclear', said))
        except Exception as error:
            wrong.append((value, type(error).__name__, str(error)[:80]))
        else:
            wrong.append((value, 'taken'))
    assert not wrong, wrong
