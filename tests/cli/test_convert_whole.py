"""Converting: a weight that is missing, doubled or misshapen is refused by name."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import plain_mae
import pytest
import torch
import vits
from torch import Tensor

from medic_mm.checkpoints import convert_keys, convert_weights, load_backbone
from medic_mm.cli.convert import convert_file
from medic_mm.errors import UserError

Weights = dict[str, Tensor]


def sources() -> dict[str, Weights]:
    host = vits.checkpoint(vits.mmpretrain_vit(layer_scale_init_value=0.1))
    plain = vits.checkpoint(vits.mmpretrain_vit())
    return {
        'mmpretrain': host,
        'mmseg': convert_keys(host, 'mmpretrain', 'mmseg'),
        'timm': convert_keys(host, 'mmpretrain', 'timm'),
        'mae': plain_mae.random_weights(),
        'encoder': convert_keys(plain, 'mmpretrain', 'mae'),
    }


SOURCES = sources()
TARGET = {'mae': 'mmpretrain', 'encoder': 'timm'}


def convert(tmp_path: Path, source: str, weights: dict) -> Path:
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': weights}, path)
    to = TARGET.get(source, 'mae')
    return convert_file(path, tmp_path / 'b.safetensors', to).path


@pytest.mark.parametrize('source', SOURCES)
def test_whole_files_are_converted(tmp_path: Path, source: str) -> None:
    assert convert(tmp_path, source, SOURCES[source]).is_file()


def require(source: str, weights: dict) -> None:
    """As :func:`convert`, without writing files."""
    convert_weights(weights, 'auto', TARGET.get(source, 'mae'), whole='the file')


@pytest.mark.parametrize('source', SOURCES)
def test_each_weight_that_is_missing_is_named(tmp_path: Path, source: str) -> None:
    for name in SOURCES[source]:
        rest = {k: v for k, v in SOURCES[source].items() if k != name}
        words = f'the file is not a whole encoder: missing {re.escape(name)}$'
        with pytest.raises(UserError, match=words):
            require(source, rest)
    with pytest.raises(UserError, match=rf'a\.pth is not .*missing {name}$'):
        convert(tmp_path, source, rest)
    assert not (tmp_path / 'b.safetensors').exists()


def not_square(value: Tensor) -> bool:
    return value.dim() == 2 and value.shape[0] != value.shape[1]


@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize('change', ['transposed', 'doubled', 'cut'])
def test_each_weight_of_another_shape_is_named(source: str, change: str) -> None:
    for name, value in SOURCES[source].items():
        if change == 'transposed':
            if not not_square(value):
                continue
            other = value.t().contiguous()
        elif change == 'doubled':
            other = torch.cat([value, value])
        else:
            other = value[..., :-1].contiguous()
        with pytest.raises(UserError, match='of another shape') as caught:
            require(source, {**SOURCES[source], name: other})
        assert f'{name} {tuple(other.shape)}' in str(caught.value)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda v: v * torch.nan, 'NaN or infinity in'),
        (lambda v: v.fill_(torch.inf), 'NaN or infinity in'),
        (lambda v: v.int(), r'torch\.int32 in place of floating-point numbers in'),
        (lambda v: v > 0, r'torch\.bool in place of floating-point numbers in'),
        (lambda v: v.to(torch.complex64), r'complex numbers \(torch\.complex64\) in'),
        (lambda v: v.to_sparse(), 'sparse tensors'),
        (lambda v: v.to('meta'), 'tensors without values'),
        (lambda v: v.numpy(), 'numpy arrays in place of tensors'),
        (lambda v: np.float32(1), 'missing'),
        (lambda v: v.tolist(), 'missing'),
        (lambda v: None, 'missing'),
    ],
)
@pytest.mark.parametrize('source', SOURCES)
def test_weights_that_are_none(tmp_path: Path, source: str, change, words: str) -> None:
    weights = dict(SOURCES[source])
    name = next(name for name in weights if name.endswith('1.attn.qkv.weight'))
    weights[name] = change(weights[name].clone())
    with pytest.raises(UserError, match=words) as caught:
        convert(tmp_path, source, weights)
    assert name in str(caught.value)


STYLES = ('4', '5', 'network')


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('start', ['vit.', ''])
def test_vitmae_of_each_version_of_transformers(style: str, start: str) -> None:
    weights = plain_mae.random_weights()
    found = plain_mae.hugging_face(weights, style, start)
    done = convert_weights(found, 'auto', 'mae', whole='x')
    assert done.left_out == {}
    assert done.weights.keys() == weights.keys()
    assert all(torch.equal(done.weights[k], v) for k, v in weights.items())


@pytest.mark.parametrize('style', STYLES)
def test_vit_with_pooler_and_classifier(style: str) -> None:
    weights = plain_mae.encoder_only(plain_mae.random_weights())
    for start, extra in (
        (
            '',
            {
                'pooler.dense.weight': torch.ones(2, 2),
                'pooler.dense.bias': torch.ones(2),
            },
        ),
        (
            'vit.',
            {'classifier.weight': torch.ones(3, 2), 'classifier.bias': torch.ones(3)},
        ),
        (
            'vit.',
            {
                'vit.embeddings.mask_token': torch.ones(1),
                'decoder.0.bias': torch.ones(1),
            },
        ),
    ):
        found = {**plain_mae.hugging_face(weights, style, start), **extra}
        done = convert_weights(found, 'auto', 'timm', whole='x')
        assert set(done.left_out) == set(extra)
        assert all(torch.equal(done.weights[k], v) for k, v in weights.items())


@pytest.mark.parametrize('style', STYLES)
def test_parts_of_hugging_face_that_do_not_belong_together(style: str) -> None:
    found = plain_mae.hugging_face(plain_mae.random_weights(), style, 'vit.')
    word = 'k_proj' if style == 'network' else 'attention.key'
    name = next(name for name in found if f'2.attention.{word}.weight' in name)
    for value, words in (
        (None, f'has no {name} next to it'),
        (found[name][:-1], 'are not of one shape and type'),
        (found[name].double(), 'are not of one shape and type'),
        (found[name].long(), 'torch.int64 in place of floating-point numbers'),
        (found[name] * torch.nan, 'NaN or infinity'),
    ):
        broken = {k: v for k, v in {**found, name: value}.items() if v is not None}
        with pytest.raises(UserError) as caught:
            convert_weights(broken, 'auto', 'mae')
        assert words in str(caught.value)
        assert name in str(caught.value)
    both = dict(found)
    both['embeddings.cls_token'] = both['vit.embeddings.cls_token']
    with pytest.raises(UserError, match=r'vit\.embeddings\.cls_token and embeddings'):
        convert_weights(both, 'auto', 'mae')


def test_a_network_of_mmpretrain_without_backbone() -> None:
    """Case: an empty dictionary and a line in the log."""
    for settings in ({}, dict(layer_scale_init_value=0.1), dict(pre_norm=True)):
        network = vits.mmpretrain_vit(**settings)
        expected = convert_keys(vits.checkpoint(network), 'mmpretrain', 'timm')
        for source in ('mmpretrain', 'auto'):
            found = convert_keys(network.state_dict(), source, 'timm')
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_nothing_converted_is_an_error() -> None:
    for weights in ({}, {'head.weight': torch.ones(1)}):
        with pytest.raises(UserError, match='nothing can be converted'):
            convert_keys(weights, 'mmpretrain', 'timm')
    with pytest.raises(UserError, match='nothing can be converted'):
        convert_keys({'head.weight': torch.ones(1)}, 'timm', 'mmpretrain')


CONFIG = 'model = dict(backbone=dict(img_size=(16, 36), patch_size=4))'


class TestGrid:
    def file(self, tmp_path: Path, size: object, cfg: str = '') -> Path:
        weights = vits.checkpoint(vits.mmpretrain_vit(img_size=size))
        path = tmp_path / 'a.pth'
        torch.save({'state_dict': weights, 'meta': {'cfg': cfg} if cfg else {}}, path)
        return path

    def test_a_square_is_assumed_and_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = self.file(tmp_path, 16)
        report = convert_file(path, tmp_path / 'b.pth', 'timm', img_size=32)
        words = 'has 16 patches: read as 4 rows of 4, which is assumed'
        assert words in report.text()
        assert words in caplog.text
        assert 'grid' not in report.description
        grid = (4, 4)
        told = convert_file(
            path, tmp_path / 'c.pth', 'timm', img_size=32, source_grid=grid
        )
        assert told.notes == ()
        assert told.description['grid'] == '8x8'

    def test_the_config_of_the_file_says_it(self, tmp_path: Path) -> None:
        """36 patches in 4 rows of 9, not in 6 of 6."""
        path = self.file(tmp_path, (16, 36), CONFIG)
        report = convert_file(path, tmp_path / 'b.pth', 'mmpretrain', img_size=32)
        assert report.notes == ()
        assert report.description['grid'] == '8x8'
        bare = self.file(tmp_path, (16, 36))
        said = convert_file(
            bare, tmp_path / 'c.pth', 'mmpretrain', img_size=32, source_grid=(4, 9)
        )
        assert said.notes == ()
        a, b = (torch.load(r.path)['state_dict'] for r in (report, said))
        name = 'backbone.pos_embed'
        assert a[name].equal(b[name])
        guessed = convert_file(bare, tmp_path / 'd.pth', 'mmpretrain', img_size=32)
        assert guessed.notes
        assert not torch.load(guessed.path)['state_dict'][name].equal(a[name])

    def test_a_described_grid_is_read_again(self, tmp_path: Path) -> None:
        old = vits.mmpretrain_vit(img_size=(16, 36))
        torch.save(vits.checkpoint(old), tmp_path / 'a.pth')
        for ending in ('.pth', '.safetensors'):
            dest = tmp_path / f'b{ending}'
            grid = (4, 9)
            report = convert_file(
                tmp_path / 'a.pth', dest, 'mmpretrain', source_grid=grid
            )
            assert report.description['grid'] == '4x9'
            again = convert_file(dest, tmp_path / f'c{ending}', 'mmpretrain')
            assert again.notes == ()
            network = vits.fill(vits.mmpretrain_vit(img_size=(16, 36)), 1)
            assert load_backbone(network, again.path).notes == ()
            assert network.pos_embed.equal(old.pos_embed)

    def test_an_oblong_number_without_a_grid(self, tmp_path: Path) -> None:
        path = self.file(tmp_path, (8, 12))
        with pytest.raises(UserError, match='6 patches, which are not a square'):
            convert_file(path, tmp_path / 'b.pth', 'timm', img_size=32)
        report = convert_file(path, tmp_path / 'b.pth', 'timm')
        assert 'does not say their rows and columns' in report.text()
        report = convert_file(path, tmp_path / 'b.pth', 'timm', source_grid=(2, 3))
        assert report.description['grid'] == '2x3'

    @pytest.mark.parametrize('grid', [(3, 4), (0, 16), (4,), (-4, -4), (2.0, 8)])
    def test_wrong_grids(self, tmp_path: Path, grid: tuple) -> None:
        with pytest.raises(UserError, match=r'source_grid=\('):
            convert_file(
                self.file(tmp_path, 16), tmp_path / 'b.pth', 'timm', source_grid=grid
            )

    def test_the_tool(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
    ) -> None:
        path = self.file(tmp_path, (16, 36))
        tool = Path(__file__, '../../../tools/convert.py').resolve()
        words = f'{tool} {path} {tmp_path / "b.pth"} --to timm --source-grid 4 9'
        monkeypatch.setattr(sys, 'argv', words.split())
        runpy.run_path(str(tool), run_name='__main__')
        assert '  grid: 4x9' in capsys.readouterr().out
