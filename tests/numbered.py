"""A data set of numbers and a network whose features are known from the number.

Here, and not in a test file, because processes that a test spawns import it too.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from medic_mm.evaluation.features import Features, TokenEncoder, extract_features
from medic_mm.evaluation.knn_metrics import knn_metrics

IMAGES = 7


class Numbers(Dataset):
    """Image i is filled with i; its class is i % 3."""

    def __init__(self, length: int = IMAGES, classes: str | None = 'abc') -> None:
        self.length = length
        self.metainfo = {} if classes is None else {'classes': tuple(classes)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(gt_label=torch.tensor([index % 3]))
        return dict(inputs=torch.full((3, 4, 4), float(index)), data_samples=sample)


class Unlabelled(Numbers):
    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), 'data_samples': BaseDataElement()}


class Preprocessor(nn.Module):
    """Divides by two."""

    def forward(self, data: dict, training: bool) -> dict:
        assert not training
        return {**data, 'inputs': data['inputs'] / 2}


class Tokens(nn.Module):
    """Three tokens: class token -x, patch tokens x and 3 x. Dropout shows the mode."""

    num_extra_tokens, out_type = 1, 'raw'

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = self.dropout(images[:, 0, 0, :2]) * nn.Parameter(torch.ones(2))
        return (torch.stack([-x, x, 3 * x], dim=1),)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Tokens()

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
        return self.backbone(inputs)


def loader(dataset: Dataset | None = None, **settings) -> DataLoader:
    dataset = Numbers() if dataset is None else dataset
    settings = {
        'sampler': DefaultSampler(dataset, shuffle=False),
        'batch_size': 3,
        'collate_fn': default_collate,
        **settings,
    }
    return DataLoader(dataset, **settings)


def check_values(features: Features) -> None:
    x = torch.arange(IMAGES).float()[:, None].expand(-1, 2) / 2
    assert torch.equal(features.values['cls'], -x)
    assert torch.equal(features.values['mean'], 2 * x)
    assert features.labels.tolist() == [index % 3 for index in range(IMAGES)]
    assert not features.values['cls'].requires_grad


def run_process(rank: int, world: int, store: str) -> None:
    """One of several processes: features in order, and metrics as of one process."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=world
    )
    data = loader()
    assert len(data.sampler) == 4  # 7 images: one is a repetition
    features = extract_features(TokenEncoder(Model()), Preprocessor(), data)
    check_values(features)
    # shares of the queries add up to what one process finds
    generator = torch.Generator().manual_seed(0)
    random = Features({'cls': torch.randn(9, 4, generator=generator)}, torch.arange(9))
    shared = knn_metrics(random, random, 9, ks=(1, 3))
    assert shared['cls']['top1_k1'] == 100.0
    dist.destroy_process_group()
    alone = knn_metrics(random, random, 9, ks=(1, 3))
    assert shared == alone
