"""load_backbone: strict, with a report, never silently half."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from medic_mm.checkpoints import load_backbone

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def backbone(seed: int, **settings) -> VisionTransformer:
    torch.manual_seed(seed)
    settings = dict(arch=ARCH, img_size=16, patch_size=8, out_type='raw') | settings
    network = VisionTransformer(**settings)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    if path.suffix == '.safetensors':
        save_file(weights, path)
    else:
        torch.save({'state_dict': weights, 'meta': {'epoch': 1}}, path)
    return path


def prefixed(network: nn.Module, prefix: str = 'backbone.') -> dict[str, Tensor]:
    weights = {prefix + k: v.clone() for k, v in network.state_dict().items()}
    return {**weights, 'head.weight': torch.ones(1), 'neck.weight': torch.ones(1)}


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('inside', [False, True])
def test_loads_all(tmp_path: Path, name: str, inside: bool) -> None:
    source, target = backbone(0), backbone(1)
    path = save(tmp_path / name, prefixed(source))
    model: nn.Module = target
    if inside:
        model = nn.Module()
        model.backbone = target
    report = load_backbone(model, path)
    expected = source.state_dict()
    assert set(report.loaded) == set(expected)
    assert report.missing == report.unexpected == ()
    for key, value in target.state_dict().items():
        assert torch.equal(value, expected[key])


@pytest.mark.parametrize('prefix', ['', 'encoder.'])
def test_other_prefixes(tmp_path: Path, prefix: str) -> None:
    source, target = backbone(0), backbone(1)
    weights = {prefix + k: v for k, v in source.state_dict().items()}
    load_backbone(target, save(tmp_path / 'a.pth', weights), prefix=prefix)
    images = torch.randn(2, 3, 16, 16)
    target.eval()
    source.eval()
    assert torch.equal(target(images)[0], source(images)[0])


def test_wrong_prefix_names_what_is_there(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.pth', prefixed(backbone(0), 'module.backbone.'))
    words = r"no weights below prefix='backbone\.': its names begin with module\., head"
    with pytest.raises(RuntimeError, match=words):
        load_backbone(backbone(1), path)


def test_missing_and_unexpected_are_named(tmp_path: Path) -> None:
    weights = prefixed(backbone(0))
    del weights['backbone.layers.1.attn.qkv.weight']
    weights['backbone.gamma'] = torch.ones(1)
    path = save(tmp_path / 'a.pth', weights)
    words = r'missing layers\.1\.attn\.qkv\.weight; unexpected gamma'
    with pytest.raises(RuntimeError, match=words):
        load_backbone(backbone(1), path)
    report = load_backbone(backbone(1), path, strict=False)
    assert report.missing == ('layers.1.attn.qkv.weight',)
    assert report.unexpected == ('gamma',)
    assert 'layers.1.attn.qkv.weight' not in report.loaded
    assert 'layers.0.attn.qkv.weight' in report.loaded


def test_layer_scale_is_not_dropped_silently(tmp_path: Path) -> None:
    scaled = backbone(0, layer_scale_init_value=0.1)
    path = save(tmp_path / 'a.pth', prefixed(scaled))
    with pytest.raises(RuntimeError, match=r'unexpected layers\.0\..*gamma'):
        load_backbone(backbone(1), path)


def test_nothing_that_fits_is_refused_even_when_not_strict(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.pth', {'backbone.conv1.weight': torch.ones(3)})
    with pytest.raises(RuntimeError, match='nothing that VisionTransformer takes'):
        load_backbone(backbone(1), path, strict=False)


@pytest.mark.parametrize('strict', [True, False])
def test_other_shapes_are_refused(tmp_path: Path, strict: bool) -> None:
    path = save(tmp_path / 'a.pth', prefixed(backbone(0)))
    wider = backbone(1, arch=dict(ARCH, embed_dims=32))
    with pytest.raises(RuntimeError, match=r'does not fit: .*size mismatch'):
        load_backbone(wider, path, strict=strict)


def test_position_embeddings_are_resized_by_the_host(tmp_path: Path) -> None:
    source = backbone(0)
    path = save(tmp_path / 'a.pth', prefixed(source))
    larger = backbone(1, img_size=32)
    assert load_backbone(larger, path).missing == ()
    assert larger.pos_embed.shape == (1, 17, 16)
    assert torch.equal(larger.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.equal(larger.ln1.weight, source.ln1.weight)


def test_hooks_that_drop_names_are_no_error(tmp_path: Path) -> None:
    """BEiT's load hook takes the index of relative positions out of the file."""
    settings = dict(arch=ARCH, img_size=16, patch_size=8, use_shared_rel_pos_bias=True)
    settings.update(use_rel_pos_bias=False, out_type='raw')
    source, target = BEiTViT(**settings), BEiTViT(**settings)
    report = load_backbone(target, save(tmp_path / 'a.pth', prefixed(source)))
    table = 'rel_pos_bias.relative_position_bias_table'
    assert table in report.loaded
    assert torch.equal(target.state_dict()[table], source.state_dict()[table])
