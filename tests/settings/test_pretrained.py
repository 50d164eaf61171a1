"""``--pretrained`` in a config."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.settings.pretrained import set_pretrained

HOOK = 'medic_mm.PretrainedBackboneHook'


@pytest.fixture
def file(tmp_path) -> str:
    (tmp_path / 'a.pth').write_bytes(b'weights')
    return str(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('given', 'prefix'),
    [
        (dict(), 'backbone.'),
        (dict(init_cfg=None), 'backbone.'),
        (dict(init_cfg=[dict(type='Xavier')]), 'backbone.'),
        (dict(init_cfg=dict(type='Pretrained', prefix='student.')), 'student.'),
        (dict(init_cfg=dict(type='Pretrained', prefix='')), ''),
    ],
)
def test_it_names_the_file_and_brings_the_hook(file, given, prefix):
    cfg = Config(dict(model=dict(backbone=dict(type='A', **given))))
    set_pretrained(cfg, file)
    wanted = dict(type='Pretrained', checkpoint=file, prefix=prefix)
    assert cfg.model.backbone.init_cfg == wanted
    assert [hook['type'] for hook in cfg.custom_hooks] == [HOOK]


def test_other_hooks_and_their_settings_stay(file):
    hooks = [dict(type='B'), dict(type=HOOK, new=('a.',))]
    cfg = Config(dict(model=dict(backbone=dict(type='A')), custom_hooks=hooks))
    set_pretrained(cfg, file)
    assert cfg.custom_hooks == hooks


def test_random_takes_the_file_away():
    given = dict(type='Pretrained', checkpoint=None, prefix='backbone.')
    cfg = Config(dict(model=dict(backbone=dict(type='A', init_cfg=given))))
    set_pretrained(cfg, 'random')
    assert cfg.model.backbone.init_cfg is None


def test_wrong_use_is_one_sentence(file):
    with pytest.raises(UserError, match=r"checkpoint 'absent\.pth' does not exist"):
        set_pretrained(Config(dict(model=dict(backbone=dict()))), 'absent.pth')
    with pytest.raises(UserError, match=r'no model\.backbone'):
        set_pretrained(Config(dict(model=dict(type='A'))), file)
