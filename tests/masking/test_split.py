"""Index tensors against lists."""

import pytest
import torch

from medic_mm.masking import PatchSplit, gather_tokens, random_mask


@pytest.fixture
def mask():
    return random_mask(5, (3, 4), 5, torch.Generator().manual_seed(0))


def test_indices_are_those_of_a_list(mask):
    split = PatchSplit.from_mask(mask)
    for row, visible, hidden in zip(
        mask.tolist(), split.visible.tolist(), split.hidden.tolist(), strict=True
    ):
        assert visible == [i for i, h in enumerate(row) if not h]
        assert hidden == [i for i, h in enumerate(row) if h]


def test_restore_puts_every_patch_back(mask):
    split = PatchSplit.from_mask(mask, num_masked=5)
    patches = torch.arange(5 * 12 * 2).view(5, 12, 2)
    parts = [gather_tokens(patches, i) for i in (split.visible, split.hidden)]
    assert torch.equal(gather_tokens(torch.cat(parts, 1), split.restore), patches)


def test_gather_picks_by_image():
    tokens = torch.tensor([[[1, 10], [2, 20], [3, 30]], [[4, 40], [5, 50], [6, 60]]])
    picked = gather_tokens(tokens, torch.tensor([[2, 0], [1, 1]]))
    assert picked.tolist() == [[[3, 30], [1, 10]], [[5, 50], [5, 50]]]


def test_samples_give_the_same_split(mask):
    masks = [row.view(3, 4) for row in mask]
    split = PatchSplit.from_samples(masks, torch.device('cpu'))
    assert torch.equal(split.mask, mask)
    assert torch.equal(split.visible, PatchSplit.from_mask(mask).visible)


def test_refuses_different_counts():
    masks = [torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)]
    with pytest.raises(ValueError, match='between 0 and 4'):
        PatchSplit.from_samples(masks, torch.device('cpu'))
