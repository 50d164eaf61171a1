"""A backbone starts from the files of other code bases, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vits
from timm.models.beit import Beit
from torch import nn

from medic_mm.checkpoints import convert_keys
from medic_mm.engine.hooks import PretrainedBackboneHook
from medic_mm.errors import FileError


def start(network: nn.Module, path: Path) -> list[str]:
    """Run the hook in the order of a Runner; the lines of its log."""
    network.init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    logs: list[str] = []
    logger = SimpleNamespace(info=logs.append, warning=logs.append)
    runner = SimpleNamespace(model=SimpleNamespace(backbone=network), logger=logger)
    hook = PretrainedBackboneHook()
    hook.before_run(runner)
    vits.fill(network, seed=9)
    hook.before_train(runner)
    return logs


def timm_network(**settings: object) -> nn.Module:
    return vits.fill(vits.timm_vit(**settings))


@pytest.mark.parametrize('classes', [0, 5])
@pytest.mark.parametrize('key', ['', 'model', 'state_dict'])
def test_timm(tmp_path: Path, classes: int, key: str) -> None:
    theirs = timm_network(num_classes=classes)
    weights = theirs.state_dict()
    torch.save({key: weights} if key else weights, tmp_path / 'a.pth')
    ours = vits.mmpretrain_vit()
    logs = start(ours, tmp_path / 'a.pth')
    assert 'a.pth is converted: ' in logs[0]
    assert ('head.weight' in logs[0]) == bool(classes)
    tokens = theirs.forward_features(vits.images())
    torch.testing.assert_close(ours(vits.images())[0], tokens, rtol=0, atol=1e-5)


def test_the_released_student(tmp_path: Path) -> None:
    theirs = vits.fill(
        Beit(
            img_size=vits.IMAGE,
            patch_size=vits.PATCH,
            embed_dim=vits.DIMS,
            depth=vits.DEPTH,
            num_heads=vits.HEADS,
            init_values=0.1,
            num_classes=0,
            global_pool='token',
            use_abs_pos_emb=True,
        )
    )
    weights = {f'module.student.{k}': v for k, v in theirs.state_dict().items()}
    torch.save({'model': weights, 'epoch': 3}, tmp_path / 'a.pth')
    ours = vits.mmpretrain_vit(layer_scale_init_value=0.1)
    assert 'from timm to mmpretrain' in start(ours, tmp_path / 'a.pth')[0]
    tokens = theirs.forward_features(vits.images())
    torch.testing.assert_close(ours(vits.images())[0], tokens, rtol=0, atol=1e-5)


def test_official_mae_with_its_decoder(tmp_path: Path) -> None:
    ours, twin = vits.mmpretrain_vit(), vits.mmpretrain_vit()
    vits.fill(twin, seed=4)
    weights = convert_keys(vits.checkpoint(twin), 'mmpretrain', 'mae')
    weights['decoder_norm.weight'] = torch.ones(8)
    torch.save({'model': weights}, tmp_path / 'a.pth')
    assert 'from mae to mmpretrain' in start(ours, tmp_path / 'a.pth')[0]
    torch.testing.assert_close(ours.state_dict(), twin.state_dict())


@pytest.mark.parametrize('prefix', ['', 'vit.'])
def test_hugging_face(tmp_path: Path, prefix: str) -> None:
    transformers = pytest.importorskip('transformers')
    config = transformers.ViTMAEConfig(
        hidden_size=vits.DIMS,
        num_hidden_layers=vits.DEPTH,
        num_attention_heads=vits.HEADS,
        intermediate_size=4 * vits.DIMS,
        image_size=vits.IMAGE,
        patch_size=vits.PATCH,
        mask_ratio=0.0,
    )
    theirs = vits.fill(transformers.ViTMAEModel(config))
    weights = {f'{prefix}{k}': v for k, v in theirs.state_dict().items()}
    torch.save(weights, tmp_path / 'a.bin')
    ours = vits.mmpretrain_vit()
    assert 'is converted' in start(ours, tmp_path / 'a.bin')[0]
    expected = weights[f'{prefix}embeddings.position_embeddings']
    assert torch.equal(ours.pos_embed, expected)


def other_width(weights: dict) -> None:
    weights['norm.weight'] = torch.ones(7)


def not_a_number(weights: dict) -> None:
    weights['norm.weight'][0] = torch.nan


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda x: x.pop('blocks.0.norm1.bias'), r'converted, .*layers\.0\.ln1\.bias'),
        (other_width, r'converted, .*ln1\.weight'),
        (not_a_number, r'NaN or infinity in .*ln1\.weight'),
        (lambda x: x.update(more=torch.ones(1)), 'it cannot be converted: .*more'),
    ],
)
def test_a_foreign_file_that_does_not_fit(
    tmp_path: Path, change: Callable, words: str
) -> None:
    weights = dict(timm_network().state_dict())
    change(weights)
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(FileError, match=words):
        start(vits.mmpretrain_vit(), tmp_path / 'a.pth')


def test_positions_of_other_images_are_resized(tmp_path: Path) -> None:
    torch.save(timm_network().state_dict(), tmp_path / 'a.pth')
    ours = vits.mmpretrain_vit(img_size=2 * vits.IMAGE)
    start(ours, tmp_path / 'a.pth')
    assert ours.pos_embed.shape[1] == 1 + (2 * vits.IMAGE // vits.PATCH) ** 2
