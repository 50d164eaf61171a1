"""``--data-root`` sets each data set of a config."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from medic_mm.errors import MissingFileError, UserError
from medic_mm.settings.data_root import set_data_root
from medic_mm.settings.run_config import load_config


def roots(node) -> list:
    if isinstance(node, dict):
        own = [node['data_root']] if 'data_root' in node else []
        return own + [x for value in node.values() for x in roots(value)]
    return [x for one in node for x in roots(one)] if isinstance(node, list) else []


def test_all_data_of_the_shipped_configs(root: Path, tmp_path: Path) -> None:
    """No reader of data is left at the old place, or it is said that there is none."""
    for path in sorted((root / 'configs/_base_/datasets').glob('*.py')):
        cfg = Config.fromfile(path)
        old = {
            k: cfg[k] for k in cfg if k.endswith('_dataloader') or k == 'custom_hooks'
        }
        if not roots(old):
            with pytest.raises(UserError, match='no data set of the config has a data'):
                set_data_root(cfg, str(tmp_path))
            continue
        notice = set_data_root(cfg, str(tmp_path))
        new = {k: cfg[k] for k in old}
        assert len(roots(new)) == len(roots(old))
        assert set(roots(new)) == {str(tmp_path)}, path
        assert notice.count('.data_root') == 0
        assert notice.startswith(f'--data-root: {tmp_path} is data_root of ')


def test_wrapped_data_sets(tmp_path: Path) -> None:
    inner = [dict(type='ImageNet', data_root=x, split='train') for x in 'ab']
    both = dict(type='ConcatDataset', datasets=inner)
    dataset = dict(type='RepeatDataset', times=2, dataset=both)
    cfg = Config(dict(train_dataloader=dict(batch_size=1, dataset=dataset)))
    notice = set_data_root(cfg, str(tmp_path))
    assert roots(cfg.train_dataloader) == [str(tmp_path)] * 2
    assert 'train_dataloader.dataset.dataset.datasets.1' in notice


def test_no_such_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for name in ('absent', 'file'):
        with pytest.raises(MissingFileError, match='is not a folder'):
            load_config(root / 'configs/medic/vitb_300e.py', {}, str(tmp_path / name))


def test_the_variable_of_a_config_names_the_argument(root: Path) -> None:
    path = root / 'configs/medic/vitb_300e.py'
    with pytest.raises(UserError, match='--data-root FOLDER sets all of them'):
        load_config(path, {'data_root': 'x'})
