"""One ratio hides one number of patches everywhere; what is not a number is refused."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS

from medic_mm import masking
from medic_mm.datasets.transforms import BlockMask, GridMask, RandomMask
from medic_mm.errors import UserError
from medic_mm.models.medic.evolved_masking import EvolvedMasking
from medic_mm.models.mimhd.algorithm import MIMHD
from medic_mm.pictures.inputs import count_masked, set_mask_ratio
from medic_mm.registry import MODELS as OUR_MODELS
from medic_mm.registry import TRANSFORMS as OUR_TRANSFORMS

GRID = (14, 14)


def evolved(ratio: float) -> int:
    part = EvolvedMasking(mask_ratio=ratio)
    teacher = SimpleNamespace(grid=GRID, native_grid=GRID, gives_attention=True)
    teacher.uncached = teacher
    part.prepare(SimpleNamespace(patch_resolution=GRID), teacher)
    return part.num_masked


def mimhd(ratio: float) -> int:
    backbone = SimpleNamespace(patch_resolution=GRID)
    model = SimpleNamespace(backbone=backbone, mask_ratio=ratio)
    return MIMHD.num_hidden.fget(model)


def hosts_mae(ratio: float) -> int:
    """``--ratio`` of a picture; the host's own setting rounds up."""
    settings = dict(type='mmpretrain.MAEViT', arch='deit-t', img_size=224)
    config = Config(dict(model=dict(type='mmpretrain.MAE', backbone=settings)))
    set_mask_ratio(config, ratio)
    backbone = MODELS.build(config.model.backbone)
    _, mask, _ = backbone.random_masking(torch.zeros(1, 196, 1), backbone.mask_ratio)
    return int(mask.sum())


#: Every component of ours that takes a ratio, and how many of 14x14 patches it hides.
DOORS = {
    RandomMask: lambda ratio: int(RandomMask(GRID, ratio)({})['mask'].sum()),
    GridMask: lambda ratio: int(GridMask(GRID, ratio)({})['mask'].sum()),
    BlockMask: lambda ratio: int(BlockMask(GRID, ratio)({})['mask'].sum()),
    EvolvedMasking: evolved,
    MIMHD: mimhd,
    set_mask_ratio: hosts_mae,
    count_masked: lambda ratio: count_masked(None, ratio, GRID),
    masking.masked_count: lambda ratio: masking.masked_count(196, ratio),
}


def test_every_component_with_a_ratio_is_among_the_doors():
    registered = [
        kind
        for registry in (OUR_MODELS, OUR_TRANSFORMS)
        for kind in registry.module_dict.values()
    ]
    found = {k for k in registered if 'mask_ratio' in inspect.signature(k).parameters}
    assert found == {k for k in DOORS if inspect.isclass(k)}


@pytest.mark.parametrize('ratio', ['0.29', '0.3', '0.4', '0.5', '0.6', '0.75', '0.999'])
@pytest.mark.parametrize('door', DOORS, ids=lambda door: door.__name__)
def test_a_ratio_hides_the_same_number_everywhere(door, ratio):
    assert DOORS[door](float(ratio)) == math.floor(Fraction(ratio) * 196)


def test_ratios_that_floats_cannot_hold_are_not_one_short():
    for length in (49, 64, 100, 196, 576):
        for hidden in range(length + 1):
            assert masking.masked_count(length, hidden / length) == hidden
    assert masking.masked_count(100, 0.29) == 29


# what is not a number

ODD = [math.nan, math.inf, True, '2', 1.5]
ATTENTION = torch.eye(12)[None]
FUNCTIONS = {
    'random_mask': dict(batch=1, grid=(3, 4), num_masked=4),
    'grid_mask': dict(batch=1, grid=(3, 4), num_masked=4),
    'block_mask': dict(batch=1, grid=(3, 4), num_masked=4, min_area=2, min_aspect=0.3),
    'masked_count': dict(mask_ratio=0.5),
    'cluster_em': dict(num_clusters=2, kappa=40.0, iterations=2),
    'cluster_hierarchical': dict(num_clusters=2, spatial_bias=0.5, grid=(3, 4)),
    'evolved_alpha': dict(epoch=0, epochs=2, gamma=0.2),
    'evolved_num_clusters': dict(epoch=0, epochs=2, first=4, last=2, spread=1),
    'evolved_mask': dict(grid=(3, 4), num_masked=4, alpha=0.5, num_clusters=2),
    'spatial_coherence': dict(grid=(3, 4)),
}
FIRST = dict(
    masked_count=(12,),
    cluster_em=(ATTENTION,),
    cluster_hierarchical=(ATTENTION,),
    evolved_mask=(ATTENTION,),
    spatial_coherence=(torch.zeros(1, 12, dtype=torch.long),),
)
NOT_NUMBERS = {'generator', 'linkage', 'axis', 'method', 'noise', 'unit_length'}
#: 1.5 is a number where halves are allowed.
HALVES = {'kappa', 'spatial_bias', 'gamma'}


def test_every_number_of_every_function_is_among_those_tried():
    # these take masks and tokens alone
    assert set(FUNCTIONS) == set(masking.__all__) - {
        *('PatchSplit', 'SpatialCoherence', 'gather_tokens')
    }
    for name, numbers in FUNCTIONS.items():
        names = list(inspect.signature(getattr(masking, name)).parameters)
        left = set(names[len(FIRST.get(name, ())) :]) - set(numbers)
        assert left <= {*NOT_NUMBERS, 'clustering'}, name


@pytest.mark.parametrize(
    ('name', 'argument'), [(n, a) for n, numbers in FUNCTIONS.items() for a in numbers]
)
def test_functions_refuse_what_is_not_a_number(name, argument):
    function, first = getattr(masking, name), FIRST.get(name, ())
    function(*first, **FUNCTIONS[name])
    odd = [*ODD, None, -1]
    if argument == 'grid':
        odd = [(side, 4) for side in (*odd, 0)] + [3, (3,), (3, 4, 1), '34']
        if name == 'cluster_hierarchical':
            odd = odd[:-4]
    for value in odd:
        if value == 1.5 and argument in HALVES:
            continue
        with pytest.raises(UserError, match=argument):
            function(*first, **{**FUNCTIONS[name], argument: value})


def test_numpys_whole_numbers_are_taken():
    count, side = np.int64(4), np.int32(3)
    for draw in (masking.random_mask, masking.grid_mask, masking.block_mask):
        assert int(draw(1, (side, 4), count).sum()) == 4
    assert RandomMask(np.int64(4), num_masked=np.int64(3))({})['mask'].sum() == 3


@pytest.mark.parametrize('name', ['RandomMask', 'GridMask', 'BlockMask'])
@pytest.mark.parametrize(
    ('argument', 'values'),
    [
        ('grid', [0, -1, True, 2.5, math.nan, None, '14', (0, 4), (4,), (4, True)]),
        ('mask_ratio', [*ODD, None, -0.1]),
        ('num_masked', [*ODD, -1, 196]),
        ('min_area', [*ODD, None, 0]),
        ('min_aspect', [*ODD, None, 0, -1.0]),
    ],
)
def test_transforms_refuse_what_is_not_a_number(name, argument, values):
    if argument.startswith('min_') and name != 'BlockMask':
        pytest.skip('no such argument')
    for value in values:
        with pytest.raises(UserError, match=f'{argument}=.* must'):
            TRANSFORMS.build({'type': f'medic_mm.{name}', 'grid': 14, argument: value})


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        *[(dict(mask_ratio=value), 'mask_ratio') for value in (*ODD, None, -0.1)],
        *[(dict(momentum=value), 'momentum') for value in (*ODD, None, 0, 1)],
        *[
            (dict(schedule=dict(gamma=value)), 'gamma')
            for value in (math.nan, math.inf, True, None, '1', -0.1)
        ],
        *[
            (dict(schedule=dict(clusters=value)), 'clusters|first|last')
            for value in (40, (40,), (40, 10, 1), (10, 40), (40, 0), (True, True))
        ],
        *[(dict(schedule=dict(clusters=(40, v))), 'clusters') for v in (*ODD, None)],
        *[(dict(schedule=dict(spread=value)), 'spread') for value in (*ODD, None, -1)],
        *[
            (dict(progress=value), 'progress|epoch')
            for value in (3, (1,), (-1, 3), (3, 3), (0, 0), (math.nan, 3), (0, True))
        ],
    ],
)
def test_evolved_masking_refuses_at_construction(settings, words):
    with pytest.raises(UserError, match=words):
        MODELS.build(dict(type='medic_mm.EvolvedMasking', **settings))


@pytest.mark.parametrize('clustering', [dict(kappa=True), dict(iterations=1.5)])
def test_evolved_masking_refuses_a_clustering_before_the_first_step(clustering):
    part = EvolvedMasking(clustering=clustering)
    with pytest.raises(UserError, match=next(iter(clustering))):
        part.prepare(SimpleNamespace(patch_resolution=GRID), None)


@pytest.mark.parametrize('ratio', [*ODD, None, 0, 1, -0.5])
def test_mimhd_refuses_a_ratio(ratio):
    from tiny_mimhd import build_mimhd

    with pytest.raises(UserError, match=f'mask_ratio={ratio!r} of MIMHD'):
        build_mimhd(mask_ratio=ratio)
