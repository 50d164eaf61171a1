"""Teachers read weights as every other tool: their grid, their numbers, their code."""

from __future__ import annotations

import logging
from pathlib import Path

import plain_mae
import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from medic_mm.models.teachers import MAETeacher, TimmTeacher
from medic_mm.models.teachers.loading import WeightFile

MAE = dict(
    arch=plain_mae.ARCH,
    block=2,
    patch_size=plain_mae.PATCH,
    input_size=24,
    norm_pix=True,
    decoder=dict(embed_dims=16, depth=2, num_heads=2),
)
TIMM = dict(
    model='vit_tiny_patch16_224',
    input_size=96,
    model_kwargs=dict(depth=1, embed_dim=24, num_heads=2),
)
CONFIG = 'model = dict(backbone=dict(img_size=({}, {}), patch_size={}))'


def slow(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    image = torch.stack(
        [
            torch.stack([positions[0, 1 + row * old[1] + c] for c in range(old[1])])
            for row in range(old[0])
        ]
    )
    image = nn.functional.interpolate(
        image.permute(2, 0, 1)[None], new, mode='bicubic', align_corners=False
    )
    patches = [image[0, :, r, c] for r in range(new[0]) for c in range(new[1])]
    return torch.stack([positions[0, 0], *patches])[None]


def test_oblong_positions_of_an_mae(tmp_path: Path) -> None:
    """36 patches in 4 rows of 9, for a teacher of 6 rows of 6."""
    weights = plain_mae.random_weights(side=6)
    path = tmp_path / 'a.pth'
    cfg = CONFIG.format(16, 36, 4)
    torch.save({'model': weights, 'meta': {'cfg': cfg}}, path)
    teacher = MAETeacher(**MAE, weights=str(path))
    teacher.init_weights()
    network = teacher.network
    for found, name in (
        (network['backbone'].pos_embed, 'pos_embed'),
        (network['neck'].decoder_pos_embed, 'decoder_pos_embed'),
    ):
        torch.testing.assert_close(found, slow(weights[name], (4, 9), (6, 6)))
    torch.save({'model': weights}, path)  # a square, where nobody says it
    teacher = MAETeacher(**MAE, weights=str(path))
    teacher.init_weights()
    assert teacher.network['backbone'].pos_embed.equal(weights['pos_embed'])


def test_an_mae_of_transformers(tmp_path: Path) -> None:
    """What ``tools/convert.py`` reads, the teacher reads as well."""
    weights = plain_mae.random_weights()
    found = []
    for number, given in enumerate(
        [weights, plain_mae.hugging_face(weights, '5', 'vit.')]
    ):
        torch.save(given, tmp_path / f'{number}.pth')
        settings = dict(MAE, input_size=plain_mae.PATCH * plain_mae.SIDE)
        teacher = MAETeacher(**settings, weights=str(tmp_path / f'{number}.pth'))
        teacher.init_weights()
        found.append(teacher.network.state_dict())
    assert all(value.equal(found[1][name]) for name, value in found[0].items())


def test_oblong_positions_of_a_timm_network(tmp_path: Path) -> None:
    teacher = TimmTeacher(**TIMM, random_weights=True)
    weights = {k: torch.randn_like(v) for k, v in teacher.network.state_dict().items()}
    path = tmp_path / 'a.pth'
    cfg = CONFIG.format(64, 144, 16)
    torch.save({'state_dict': weights, 'meta': {'cfg': cfg}}, path)
    teacher = TimmTeacher(**TIMM, weights=str(path))
    teacher.init_weights()
    expected = slow(weights['pos_embed'], (4, 9), (6, 6))
    torch.testing.assert_close(teacher.network.pos_embed.detach(), expected)
    short = {**weights, 'pos_embed': torch.ones(1, 13, 24)}
    torch.save({'state_dict': short}, path)
    with pytest.raises(RuntimeError, match=r'a\.pth does not fit.* pos_embed'):
        TimmTeacher(**TIMM, weights=str(path)).init_weights()


def test_what_is_assumed_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = MMLogger.get_instance('weight_values', log_level='INFO')
    file = WeightFile(Path('a.pth'), {})
    with caplog.at_level(logging.INFO, logger=logger.name):
        MMLogger.get_current_instance().addHandler(caplog.handler)
        file.positions_on((6, 6), 'pos_embed', torch.ones(1, 37, 2))
        MMLogger.get_current_instance().removeHandler(caplog.handler)
    assert 'a.pth has 36 patches: read as 6 rows of 6' in caplog.text
