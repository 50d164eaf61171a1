"""A mask from outside, as docs/extending.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from extended import component, run, shorten, steps_of, write_files
from mmengine.config import Config
from tiny_runs import write_images

from medic_mm.datasets.transforms import MaskTransform
from medic_mm.errors import UserError
from medic_mm.masking import random_mask
from medic_mm.pictures.masks import MaskSettings, draw_own_mask


def test_trains_and_is_drawn_and_reported(tmp_path: Path) -> None:
    module, config = write_files('A mask', tmp_path)
    assert module == 'my_mask.py'
    shorten(tmp_path / config)
    images = write_images(tmp_path / 'images', 1)
    run(
        tmp_path,
        f'tools/train.py {config} --work-dir work',
        f'tools/visualize.py reconstruction {config} work/epoch_2.pth {images}'
        ' --out pictures',
        f'tools/visualize.py masks {config} {images} --out masks',
        'tools/report.py work',
    )
    assert list((tmp_path / 'pictures').glob('*.png'))
    assert list((tmp_path / 'masks').glob('*.png'))
    assert list((tmp_path / 'work').glob('*.html'))
    rows = steps_of(tmp_path / 'work')
    assert sum('loss_token' in row for row in rows) == 10
    assert any('knn' in key for row in rows for key in row)


def test_is_drawn_beside_the_built_in_masks() -> None:
    def config(**mask: object) -> Config:
        dataset = dict(pipeline=[dict(grid=4, **mask)])
        return Config(dict(train_dataloader=dict(dataset=dataset)))

    settings = MaskSettings(num_masked=5, seed=1)
    own = draw_own_mask(config(type=Scattered, mask_ratio=0.9), (4, 6), 3, settings)
    torch.manual_seed(1)
    assert torch.equal(own['Scattered'], random_mask(3, (4, 6), 5))
    assert draw_own_mask(config(type='medic_mm.GridMask'), (4, 4), 1, settings) == {}
    assert draw_own_mask(None, (4, 4), 1, settings) == {}


class Scattered(MaskTransform):
    """As RandomMask."""

    draw = staticmethod(random_mask)


def test_hides_the_nearest_patches(tmp_path: Path) -> None:
    kind = component('A mask', 'DiskMask', tmp_path)
    torch.manual_seed(0)
    mask = kind(grid=(6, 9), num_masked=11)({})['mask']
    torch.manual_seed(0)
    row, column = (torch.rand(1, 1, 2) * torch.tensor((6, 9))).flatten().tolist()
    near = sorted(
        ((i - row) ** 2 + (j - column) ** 2, i, j) for i in range(6) for j in range(9)
    )
    assert {(i, j) for _, i, j in near[:11]} == set(zip(*mask.nonzero(), strict=True))


class Wrong(MaskTransform):
    """Hides one patch less than it should, or says it with numbers."""

    number = False

    def draw(self, batch, grid, num_masked):
        mask = torch.zeros(batch, grid[0] * grid[1])
        mask[:, : num_masked - (not self.number)] = 1
        return mask if self.number else mask.bool()


def test_a_draw_that_breaks_the_contract_is_refused() -> None:
    transform = Wrong(grid=4, num_masked=6)
    with pytest.raises(UserError, match=r'draw of Wrong hides 5 .* that hides 6'):
        transform({})
    transform.number = True
    with pytest.raises(UserError, match=r'hides 6.* \(float32\): return a bool mask'):
        transform({})
