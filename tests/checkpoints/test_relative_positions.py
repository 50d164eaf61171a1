"""Tables of relative positions: for other windows, for each block, and their index."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmpretrain.models.backbones import BEiTViT
from torch import Tensor

from medic_mm.checkpoints.backbone import (
    fit_relative_positions,
    resize_relative_positions,
)

HEADS = 3
TABLE = 'rel_pos_bias.relative_position_bias_table'
ARCH = dict(embed_dims=24, num_layers=2, num_heads=HEADS, feedforward_channels=48)


def network(img_size, shared: bool = True) -> BEiTViT:
    beit = BEiTViT(
        ARCH,
        img_size=img_size,
        patch_size=8,
        out_type='raw',
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in beit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    beit.eval()  # returns nothing
    return beit


def table_of(window: tuple[int, int], bias) -> Tensor:
    """Row by row what ``bias`` says of a distance; then the class token's rows."""
    height, width = window
    rows = [
        [bias(dy, dx) * (head + 1) for head in range(HEADS)]
        for dy in range(1 - height, height)
        for dx in range(1 - width, width)
    ]
    return torch.tensor([*rows, [7.0] * HEADS, [8.0] * HEADS, [9.0] * HEADS])


@pytest.mark.parametrize('new', [(32, 32), (14, 20), (7, 14)])
def test_resized_as_beit_does_it(new: tuple[int, int]) -> None:
    """BEiT's own loop: the ratio by bisection, the distances one by one, splines."""
    from scipy.interpolate import RectBivariateSpline

    old = (14, 14)
    random = np.random.default_rng(0)
    table = torch.from_numpy(random.normal(size=(27 * 27 + 3, HEADS))).float()

    def known(length: int, wanted: int) -> list[float]:
        if length == wanted:
            return [float(i) for i in range(-(length // 2), length // 2 + 1)]
        left, right = 1.01, 1.5
        while right - left > 1e-6:
            q = (left + right) / 2.0
            if (1 - q ** (length // 2)) / (1 - q) > wanted // 2:
                right = q
            else:
                left = q
        ahead, current = [], 1.0
        for i in range(length // 2):
            ahead.append(current)
            current += q ** (i + 1)
        return [-x for x in reversed(ahead)] + [0.0] + ahead

    y, x = (known(27, 2 * side - 1) for side in new)
    columns = []
    for head in range(HEADS):
        grid = table[:-3, head].reshape(27, 27).double().numpy()
        spline = RectBivariateSpline(y, x, grid)
        dy, dx = (np.arange(-side + 1.0, side) for side in new)
        columns.append([float(spline(b, a)[0, 0]) for b in dy for a in dx])
    expected = torch.cat([torch.tensor(columns).T, table[-3:]])
    found = resize_relative_positions(table, old, new)
    assert found.dtype == table.dtype
    torch.testing.assert_close(found, expected.float(), atol=2e-5, rtol=0)


def test_a_line_stays_a_line_near_the_centre_and_ends_meet() -> None:
    """Close distances keep their bias, the farthest of both windows are the same."""
    old, new = (14, 14), (32, 32)
    table = table_of(old, lambda dy, dx: math.hypot(dy, dx))
    found = resize_relative_positions(table, old, new)
    grid = found[:-3, 0].reshape(63, 63)
    assert grid[31, 31].abs() < 1e-4
    torch.testing.assert_close(grid[31, 32], torch.tensor(1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(grid[0, 31], torch.tensor(13.0), atol=1e-2, rtol=0)
    assert found[-3:].equal(table[-3:])


def test_a_shared_table_goes_to_each_block() -> None:
    source, target = network(32), network(32, shared=False)
    weights, notes = fit_relative_positions(source.state_dict(), target.state_dict())
    target.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(target(images)[0], source(images)[0])
    assert notes == ('each block has a copy of the shared relative positions',)
    # copies: training one block leaves the others alone
    tables = [weights[f'layers.{i}.attn.relative_position_bias_table'] for i in (0, 1)]
    assert tables[0].data_ptr() != tables[1].data_ptr()


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('size', [(16, 40), (40, 16), (48, 48)])
def test_the_window_is_read_from_the_index(size: tuple[int, int], shared: bool) -> None:
    """16x40 and 40x16 pixels have tables of the same length."""
    source = network(size)
    target = network((64, 32), shared)
    weights, notes = fit_relative_positions(source.state_dict(), target.state_dict())
    target.load_state_dict(weights, strict=True)
    name = TABLE if shared else 'layers.1.attn.relative_position_bias_table'
    window = (size[0] // 8, size[1] // 8)
    expected = resize_relative_positions(source.state_dict()[TABLE], window, (8, 4))
    assert torch.equal(target.state_dict()[name], expected)
    assert notes[-1] == (
        f'relative positions resized from {window[0]}x{window[1]} to 8x4'
    )


def test_same_count_of_another_window_is_resized() -> None:
    source, target = network((16, 40)), network((40, 16))
    weights, _ = fit_relative_positions(source.state_dict(), target.state_dict())
    assert weights[TABLE].shape == source.state_dict()[TABLE].shape
    assert not weights[TABLE].equal(source.state_dict()[TABLE])


def test_without_an_index_a_square_is_assumed_and_said() -> None:
    source, target = network(32), network(64)
    weights = {k: v for k, v in source.state_dict().items() if 'index' not in k}
    fitted, notes = fit_relative_positions(weights, target.state_dict())
    target.load_state_dict(fitted, strict=True)
    assert notes == (
        'relative positions resized from 4x4 (a square, by the number of rows) to 8x8',
    )
    weights = {
        k: v for k, v in network((16, 40)).state_dict().items() if 'index' not in k
    }
    with pytest.raises(RuntimeError, match='30 rows, which is not a square window'):
        fit_relative_positions(weights, target.state_dict())


def test_an_index_of_other_patches_is_refused() -> None:
    weights = dict(network(32).state_dict())
    index = TABLE.replace('bias_table', 'index')
    weights[index] = network(48).state_dict()[index]
    with pytest.raises(RuntimeError, match=r'52 rows, which do not fit the 36 patches'):
        fit_relative_positions(weights, network(64).state_dict())


def test_a_file_without_tables_is_left_as_it_is() -> None:
    weights = {'cls_token': torch.zeros(1, 1, 24)}
    assert fit_relative_positions(weights, network(32).state_dict()) == (weights, ())
