"""Masks against slow references that read the same random numbers."""

import math
import random

import pytest
import torch

from medic_mm.masking import block_mask, grid_mask, random_mask

FUNCTIONS = [random_mask, grid_mask, block_mask]
GRIDS = [(14, 14), (8, 8), (4, 4), (7, 5), (1, 9), (1, 1)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('draw', FUNCTIONS)
@pytest.mark.parametrize('grid', GRIDS)
def test_hides_exactly_the_asked_number(draw, grid):
    length = grid[0] * grid[1]
    for count in {0, 1, length // 4, int(length * 0.4), int(length * 0.75), length}:
        count = min(count, length)
        mask = draw(5, grid, count, seeded(count))
        assert mask.dtype == torch.bool
        assert mask.shape == (5, length)
        assert mask.sum(1).tolist() == [count] * 5


@pytest.mark.parametrize('draw', FUNCTIONS)
def test_comes_back_from_the_same_seed_and_varies_otherwise(draw):
    one, two, other = (draw(8, (14, 14), 78, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert len({tuple(row.tolist()) for row in one}) > 1, 'images share one mask'


def test_random_mask_hides_the_largest_noise():
    mask = random_mask(4, (6, 6), 13, seeded(7))
    noise = torch.rand(4, 36, generator=seeded(7)).tolist()
    for row, values in zip(mask.tolist(), noise, strict=True):
        ranked = sorted(range(36), key=lambda i: values[i], reverse=True)
        assert [i for i in range(36) if row[i]] == sorted(ranked[:13])


def test_random_mask_is_uniform():
    share = random_mask(4000, (4, 4), 6, seeded(0)).float().mean(0)
    # standard error of a share of 0.375 over 4,000 draws is 0.0077
    assert (share - 6 / 16).abs().max() < 5 * 0.0077


def test_grid_mask_shows_one_corner_of_every_cell():
    for row in grid_mask(32, (8, 6), 36, seeded(1)).view(32, 8, 6):
        shown = [(r, c) for r in range(8) for c in range(6) if not row[r, c]]
        corners = {(r % 2, c % 2) for r, c in shown}
        assert len(shown) == 12
        assert len(corners) == 1
    corners = grid_mask(64, (2, 2), 3, seeded(1)).float().argmin(1)
    assert set(corners.tolist()) == {0, 1, 2, 3}, 'some corners are never shown'


@pytest.mark.parametrize('count', [20, 45])
def test_grid_mask_adds_or_drops_within_the_pattern(count):
    for row in grid_mask(16, (8, 8), count, seeded(2)).view(16, 8, 8):
        best = max(
            sum(
                bool(row[r, c]) == ((r % 2, c % 2) != corner)
                for r in range(8)
                for c in range(8)
            )
            for corner in ((0, 0), (0, 1), (1, 0), (1, 1))
        )
        # 48 are hidden by the pattern; only the difference may disagree with it
        assert best == 64 - abs(48 - count)


def literal_block_mask(batch, rows, columns, count, generator, min_area, min_aspect):
    """BEiT's rule with sets of cells, one image at a time."""
    images = []
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    for _ in range(batch):
        hidden: set[tuple[int, int]] = set()
        failures, numbers = 0, []
        while len(hidden) < count and failures < 10:
            if not numbers:
                numbers = torch.rand(64, generator=generator).tolist()
            a, b, c, d = (numbers.pop() for _ in range(4))
            missing = count - len(hidden)
            area = min_area + a * (missing - min_area)
            aspect = math.exp((2 * b - 1) * math.log(min_aspect))
            height = round((area * aspect) ** 0.5)
            width = round((area / aspect) ** 0.5)
            failures += 1
            if height >= max(rows, 2) or width >= max(columns, 2):
                continue
            top, left = int(c * (rows - height + 1)), int(d * (columns - width + 1))
            block = {(top + i, left + j) for i in range(height) for j in range(width)}
            if 0 < len(block - hidden) <= missing:
                hidden |= block
                failures = 0
        shown = [cell for cell in cells if cell not in hidden]
        if len(hidden) < count:
            for number in torch.rand(count - len(hidden), generator=generator).tolist():
                hidden.add(shown.pop(int(number * len(shown))))
        images.append([cell in hidden for cell in cells])
    return images


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(('count', 'min_area'), [(78, 16), (147, 16), (190, 4)])
def test_block_mask_follows_beits_rule(seed, count, min_area):
    mask = block_mask(1, (14, 14), count, seeded(seed), min_area=min_area)
    expected = literal_block_mask(1, 14, 14, count, seeded(seed), min_area, 0.3)
    assert mask.tolist() == expected


def test_block_mask_of_a_batch_and_an_uneven_grid():
    mask = block_mask(6, (9, 13), 60, seeded(5), min_area=8, min_aspect=0.5)
    assert mask.tolist() == literal_block_mask(6, 9, 13, 60, seeded(5), 8, 0.5)


def beits_masks(amount, side, count, min_area, seed):
    """BEiT-2's and MEDiC's sampler, from their own source of randomness."""
    rng = random.Random(seed)
    masks = torch.zeros(amount, side, side, dtype=torch.bool)
    for mask in masks.numpy():
        tries = 0
        while mask.sum() < count and tries < 10:
            tries += 1
            missing = count - mask.sum()
            area = rng.uniform(min_area, missing)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            height = round(math.sqrt(area * aspect))
            width = round(math.sqrt(area / aspect))
            if height < side and width < side:
                top, left = rng.randint(0, side - height), rng.randint(0, side - width)
                block = mask[top : top + height, left : left + width]
                if 0 < block.size - block.sum() <= missing:
                    block[:] = True
                    tries = 0
        shown = [(r, c) for r in range(side) for c in range(side) if not mask[r, c]]
        for cell in rng.sample(shown, int(count - mask.sum())):
            mask[cell] = True
    return masks


def pieces_of(mask):
    """Sizes of the connected parts (neighbours share an edge)."""
    todo = {tuple(cell) for cell in mask.nonzero().tolist()}
    sizes = []
    while todo:
        stack, size = [todo.pop()], 0
        while stack:
            r, c = stack.pop()
            size += 1
            for cell in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                if cell in todo:
                    todo.remove(cell)
                    stack.append(cell)
        sizes.append(size)
    return sizes


@pytest.mark.parametrize('share', [0.40, 0.75])
@pytest.mark.parametrize(('side', 'min_area'), [(14, 16), (8, 4)])
def test_block_masks_have_the_pieces_of_beits(side, min_area, share):
    amount, count = 2000, int(side * side * share)
    ours = block_mask(amount, (side, side), count, seeded(3), min_area=min_area)
    ours = ours.view(amount, side, side)
    theirs = beits_masks(amount, side, count, min_area, seed=4)
    sizes = [[pieces_of(mask) for mask in masks] for masks in (ours, theirs)]
    for what in (len, max):  # number of pieces, patches of the largest
        one, two = (torch.tensor([float(what(s)) for s in each]) for each in sizes)
        error = ((one.var() + two.var()) / amount).sqrt()
        assert abs(one.mean() - two.mean()) < 4 * error
    # standard error of the difference of two shares: at most 0.016
    difference = ours.float().mean(0) - theirs.float().mean(0)
    assert difference.abs().max() < 4.5 * 0.016


def test_a_least_area_above_the_count_still_gives_blocks():
    masks = block_mask(200, (4, 4), 6, seeded(0)).view(200, 4, 4)
    whole = sum(len(pieces_of(mask)) == 1 for mask in masks)
    assert whole > 150
    expected = block_mask(200, (4, 4), 6, seeded(0), min_area=6).view(200, 4, 4)
    assert torch.equal(masks, expected)


def test_block_mask_is_made_of_blocks():
    """Far fewer borders between hidden and shown than a random mask has."""

    def borders(mask):
        grid = mask.view(-1, 14, 14).int()
        return int(grid.diff(dim=1).abs().sum() + grid.diff(dim=2).abs().sum())

    block = borders(block_mask(64, (14, 14), 78, seeded(0)))
    scattered = borders(random_mask(64, (14, 14), 78, seeded(0)))
    assert block < 0.45 * scattered


def test_block_mask_ends_at_any_ratio():
    for count in range(150, 197):
        mask = block_mask(2, (14, 14), count, seeded(count), min_area=100)
        assert mask.sum(1).tolist() == [count, count]


@pytest.mark.parametrize('draw', FUNCTIONS)
@pytest.mark.parametrize('count', [-1, 197])
def test_refuses_a_count_out_of_range(draw, count):
    with pytest.raises(ValueError, match=rf'num_masked={count} .*0\.\.196'):
        draw(1, (14, 14), count)


@pytest.mark.parametrize('draw', FUNCTIONS)
def test_refuses_an_empty_grid(draw):
    with pytest.raises(ValueError, match=r'grid=\(0, 3\)'):
        draw(1, (0, 3), 0)


def test_global_generator_is_the_default():
    random.seed(0)
    torch.manual_seed(11)
    first = block_mask(2, (14, 14), 78)
    torch.manual_seed(11)
    assert torch.equal(first, block_mask(2, (14, 14), 78))
