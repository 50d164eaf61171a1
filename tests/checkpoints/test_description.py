"""Reading a config's text: as MMEngine reads it, but without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from medic_mm.checkpoints.description import parse_config_text


@pytest.mark.parametrize(
    'name',
    [
        'quickstart/medic_tiny',
        'mimhd/vitb_100e',
        'tinymim/tinymim_vit-base-p16_8xb512-amp-coslr-100e_in1k',
    ],
)
def test_equal_to_what_mmengine_reads(name: str, root: Path) -> None:
    config = Config.fromfile(root / 'configs' / f'{name}.py')
    text = config.pretty_text
    expected = Config.fromstring(text, '.py').to_dict()
    found = parse_config_text(text)
    assert found == expected


def test_values_that_are_hard_to_write() -> None:
    text = "a = -1.5\nb = dict(c=(1, -2), d={'x.y': None, 3: [inf, True]})\n"
    assert parse_config_text(text) == dict(
        a=-1.5, b=dict(c=(1, -2), d={'x.y': None, 3: [float('inf'), True]})
    )


def test_expressions_stay_text() -> None:
    found = parse_config_text("a = torch.bfloat16\nb = dict(open('x'))\nc = 2 ** 99\n")
    assert found == dict(a='torch.bfloat16', b="dict(open('x'))", c='2 ** 99')


@pytest.mark.parametrize('text', ['import os', 'f()', 'a = (', 'a.b = 1', 'a = b = 1'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='the config cannot be read'):
        parse_config_text(text)
