"""The one strict loader: what fits is loaded whole, what does not changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import vits
from mmpretrain.models.backbones import BEiTViT
from torch import Tensor, nn

from medic_mm.checkpoints import load_backbone
from medic_mm.checkpoints.strict import load_strictly
from medic_mm.errors import FileError, UserError

NAME = 'layers.1.attn.proj.weight'


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(4, 3)
        self.second.weight = self.first.weight  # shared
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer('flags', torch.tensor([True, False]))


def values(seed: int = 0) -> dict[str, Tensor]:
    network = vits.fill(Plain(), seed)
    return {k: v.clone() for k, v in network.state_dict().items()}


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(v.equal(before[k]) for k, v in network.state_dict().items())


def test_all_is_loaded_and_shared_weights_stay_shared() -> None:
    network, weights = Plain(), values(1)
    weights['norm.num_batches_tracked'] = torch.tensor(7)
    parameter = network.first.weight
    report = load_strictly(network, weights, 'x')
    assert set(report.loaded) == set(weights)
    assert unchanged(network, weights)
    assert network.first.weight is parameter is network.second.weight
    assert parameter.requires_grad


def test_checking_changes_nothing() -> None:
    network, weights = Plain(), values(1)
    before = values(2)
    network.load_state_dict(before)
    assert set(load_strictly(network, weights, 'x', copy=False).loaded) == set(weights)
    assert unchanged(network, before)
    assert isinstance(network.first.weight, nn.Parameter)


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8)


FAULTS = {
    'nan': (
        lambda v: v.index_fill(0, torch.tensor(1), torch.nan),
        'NaN or infinity in',
    ),
    'inf': (
        lambda v: v.index_fill(0, torch.tensor(2), -torch.inf),
        'NaN or infinity in',
    ),
    'half nan': (lambda v: v.half() * torch.nan, 'NaN or infinity in'),
    'bfloat inf': (lambda v: v.bfloat16() + torch.inf, 'NaN or infinity in'),
    'int': (lambda v: v.long(), r'torch\.int64 in place of torch\.float32 in'),
    'bool': (lambda v: v > 0, r'torch\.bool in place of torch\.float32 in'),
    'complex': (lambda v: v.to(torch.complex64), r'complex numbers .* in'),
    'sparse': (lambda v: v.to_sparse(), r'sparse tensors \(torch\.sparse_coo\):'),
    'csr': (lambda v: v.to_sparse_csr(), 'sparse tensors'),
    'meta': (lambda v: v.to('meta'), 'tensors without values'),
    'quantised': (lambda v: quantised(), 'quantised tensors'),
    'array': (lambda v: v.numpy(), 'a ndarray in place of a tensor:'),
    'list': (lambda v: v.tolist(), 'a list in place of a tensor:'),
    'none': (lambda v: None, 'a NoneType in place of a tensor:'),
    'flat': (lambda v: v.flatten(), r'the shape \(12,\) in place of \(3, 4\) in'),
    'transposed': (lambda v: v.t(), r'size mismatch for'),
    'longer': (lambda v: torch.cat([v, v]), r'size mismatch for'),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', FAULTS)
def test_a_weight_that_is_not_one(kind: str) -> None:
    network, weights = Plain(), values(1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    change, sentence = FAULTS[kind]
    weights['first.weight'] = change(weights['first.weight'])
    for copy in (False, True):
        with pytest.raises(FileError, match=f'^x does not fit: {sentence} ') as caught:
            load_strictly(network, weights, 'x', 'Try another', copy=copy)
        assert 'first.weight' in str(caught.value)
        assert str(caught.value).endswith('Plain is left as it was. Try another')
    assert unchanged(network, before)


@pytest.mark.parametrize('kind', FAULTS)
@pytest.mark.filterwarnings('ignore')
def test_weights_that_are_left_out_may_be_anything(kind: str) -> None:
    weights = values(1)
    weights['extra'] = FAULTS[kind][0](weights['first.weight'])
    network = Plain()
    report = load_strictly(network, weights, 'x', left=('extra',))
    assert report.unexpected == ('extra',)
    weights.pop('extra')
    assert unchanged(network, weights)


def test_buffers_keep_their_kind() -> None:
    weights = values(1)
    for name, value in (
        ('norm.num_batches_tracked', torch.tensor(1.0)),
        ('flags', torch.tensor([1, 0])),
        ('norm.running_mean', torch.tensor([1, 2, 3])),
    ):
        with pytest.raises(FileError, match=f'in place of .* in {name}'):
            load_strictly(Plain(), {**weights, name: value}, 'x')


def test_names() -> None:
    weights = values(1)
    weights['another'] = weights.pop('first.bias')
    with pytest.raises(FileError, match=r'missing first\.bias; unexpected another;'):
        load_strictly(Plain(), weights, 'x')
    report = load_strictly(Plain(), weights, 'x', new=('first.',), left=('an',))
    assert (report.missing, report.unexpected) == (('first.bias',), ('another',))
    assert 'first.bias' not in report.loaded


def save(path: Path, weights: dict[str, Tensor], **more: object) -> Path:
    torch.save({'state_dict': weights, **more}, path)
    return path


def test_a_backbone_is_left_as_it_was(tmp_path: Path) -> None:
    """Also where its load hook fails: a number of tokens that is not a square."""
    network = vits.mmpretrain_vit()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    source = vits.checkpoint(vits.fill(vits.mmpretrain_vit(), 3))
    source[f'backbone.{NAME}'] *= torch.nan
    path = save(tmp_path / 'a.pth', source)
    with pytest.raises(FileError, match=f'NaN or infinity in {NAME}'):
        load_backbone(network, path, strict=False)
    wide = {**source, f'backbone.{NAME}': torch.ones(2, 2)}
    with pytest.raises(FileError, match=f'size mismatch for {NAME}'):
        load_backbone(network, save(path, wide), strict=False)
    assert unchanged(network, before)


def backbone(img_size: tuple[int, int] | int = 16, seed: int = 0) -> nn.Module:
    network = vits.mmpretrain_vit(img_size=img_size)
    return vits.fill(network, seed)


def slow_resize(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int]
) -> Tensor:
    """Place by place, on an image of positions."""
    _, _, dims = positions.shape
    image = torch.empty(1, dims, *old)
    for row in range(old[0]):
        for column in range(old[1]):
            image[0, :, row, column] = positions[0, 1 + row * old[1] + column]
    image = nn.functional.interpolate(image, new, mode='bicubic', align_corners=False)
    out = [positions[0, 0]]
    for row in range(new[0]):
        for column in range(new[1]):
            out.append(image[0, :, row, column])
    return torch.stack(out)[None]


CONFIG = 'model = dict(backbone=dict(img_size=({}, {}), patch_size=4))'


@pytest.mark.parametrize('new', [(16, 16), (24, 24), (36, 16)])
@pytest.mark.parametrize('how', ['config', 'argument'])
def test_oblong_positions_by_the_grid_of_the_file(
    tmp_path: Path, new: tuple[int, int], how: str
) -> None:
    """36 patches may be 6 x 6 or 4 x 9: the host takes them for a square."""
    old = backbone((16, 36))
    told = how == 'config'
    meta = {'cfg': CONFIG.format(16, 36)} if told else {}
    path = save(tmp_path / 'a.pth', vits.checkpoint(old), meta=meta)
    network = backbone(new, 1)
    report = load_backbone(network, path, source_grid=None if told else (4, 9))
    grid = new[0] // 4, new[1] // 4
    expected = slow_resize(old.pos_embed.detach(), (4, 9), grid)
    torch.testing.assert_close(network.pos_embed.detach(), expected)
    assert report.notes == ()


def test_what_is_assumed_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = backbone(24)
    path = save(tmp_path / 'a.pth', vits.checkpoint(old))
    network = backbone(24, 1)
    report = load_backbone(network, path)
    assert network.pos_embed.equal(old.pos_embed)
    words = '36 patches: read as 6 rows of 6, which is assumed'
    assert words in report.notes[0]
    assert words in caplog.text
    # the same number on another grid of the network
    with pytest.raises(FileError, match=r'may be 4x9 as in the backbone, or a square'):
        load_backbone(backbone((16, 36)), path)
    report = load_backbone(network, path, source_grid=(6, 6))
    assert report.notes == ()
    with pytest.raises(UserError, match=r'source_grid=\(5, 5\) has 25 patches, but'):
        load_backbone(network, path, source_grid=(5, 5))
    with pytest.raises(UserError, match=r'source_grid=\(0, 5\) is not a grid'):
        load_backbone(network, path, source_grid=(0, 5))


def test_a_number_that_is_no_square(tmp_path: Path) -> None:
    old = backbone((8, 12))
    path = save(tmp_path / 'a.pth', vits.checkpoint(old))
    with pytest.raises(FileError, match='6 patches, which are not a square'):
        load_backbone(backbone(16), path)
    network = backbone((8, 12), 1)
    report = load_backbone(network, path)
    assert 'read as 2x3 as in the backbone' in report.notes[0]
    assert network.pos_embed.equal(old.pos_embed)


def test_relative_positions_load(tmp_path: Path) -> None:
    """BEiT's hook takes its own index out of the file."""
    settings = dict(arch=vits.ARCH, img_size=16, patch_size=4, out_type='raw')
    settings.update(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    source, target = vits.fill(BEiTViT(**settings)), BEiTViT(**settings)
    report = load_backbone(target, save(tmp_path / 'a.pth', vits.checkpoint(source)))
    assert report.missing == ()
    assert unchanged(target, dict(source.state_dict()))


def test_positions_that_are_not_used_may_be_anything(tmp_path: Path) -> None:
    network = BEiTViT(vits.ARCH, img_size=16, patch_size=4, out_type='raw')
    weights = vits.checkpoint(network)
    weights['backbone.pos_embed'] = torch.full((1, 17, vits.DIMS), torch.nan)
    report = load_backbone(network, save(tmp_path / 'a.pth', weights), left=('pos',))
    assert report.unexpected == ('pos_embed',)
