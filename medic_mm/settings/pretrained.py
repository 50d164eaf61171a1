"""``--pretrained FILE``: the weights that a backbone starts from."""

from __future__ import annotations

from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.settings.checkpoint_arguments import require_file

#: In place of a file: random weights, for comparison.
RANDOM = 'random'

_HOOK = 'PretrainedBackboneHook'


def set_pretrained(cfg: Config, file: str) -> None:
    """Let the backbone of a config start from a file, loaded strictly.

    Sets ``model.backbone.init_cfg`` and adds ``medic_mm.PretrainedBackboneHook`` where
    the config does not have it.

    Args:
        cfg: A config with ``model.backbone``, changed in place.
        file: A local checkpoint with the weights below the prefix that the config
            names, else below ``backbone.``, or of another code base, whose names are
            converted then; or ``'random'``.

    Raises:
        UserError: for no such file, or a config without a backbone.
    """
    backbone = (cfg.get('model') or {}).get('backbone')
    if not isinstance(backbone, dict):
        raise UserError('--pretrained: the config has no model.backbone')
    if file == RANDOM:
        backbone['init_cfg'] = None
    else:
        require_file(file, '--pretrained')
        given = backbone.get('init_cfg')
        prefix = given.get('prefix') if isinstance(given, dict) else None
        backbone['init_cfg'] = dict(
            type='Pretrained',
            checkpoint=file,
            prefix='backbone.' if prefix is None else prefix,
        )
    hooks = list(cfg.get('custom_hooks') or [])
    if not any(type_name(hook) == _HOOK for hook in hooks):
        cfg.custom_hooks = [dict(type=f'medic_mm.{_HOOK}'), *hooks]
