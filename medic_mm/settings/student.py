"""A backbone with its preprocessor, out of a config of pre-training."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from medic_mm.checkpoints.openmmlab import is_pretrained, load_pretrained
from medic_mm.datasets.data_preprocessor import require_rgb
from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.models.fit import require_dividing_heads
from medic_mm.registry import MODELS

#: In place of a checkpoint: the backbone as it is before training.
RANDOM = 'random'


class Student(BaseModule):
    """The backbone and the preprocessor of an algorithm's config, and nothing else.

    So no teacher, decoder or head is built or loaded. The ``init_cfg`` of the algorithm
    is kept, without pre-trained files: ``init_weights`` draws weights as training does.

    Args:
        model: The ``model`` of a config.

    Raises:
        ValueError: for a config without ``model.backbone``.
    """

    def __init__(self, model: dict) -> None:
        if 'backbone' not in model:
            raise ValueError('the config has no model.backbone: k-NN needs one')
        init = _drop_pretrained(dict(init_cfg=model.get('init_cfg')))
        super().__init__(init_cfg=init.get('init_cfg'))
        self.backbone = MODELS.build(_drop_pretrained(model['backbone']))
        preprocessor = copy.deepcopy(dict(model.get('data_preprocessor') or {}))
        preprocessor.setdefault('type', 'mmpretrain.SelfSupDataPreprocessor')
        self.data_preprocessor = MODELS.build(preprocessor)
        if type_name(model) in ('MEDiC', 'MIMHD'):
            require_rgb(self.data_preprocessor)
        require_dividing_heads(self)

    def extract_feat(self, inputs: Tensor) -> Any:
        """Run the backbone on whole images; one that masks is told not to."""
        return self.backbone(inputs, **_no_mask(self.backbone))


def load_student(config: Config, checkpoint: str) -> Student:
    """Build a config's student and give it a checkpoint's weights, in eval mode.

    Args:
        config: A config with ``model.backbone``.
        checkpoint: A file with the weights below ``backbone.``, or in the names of
            another code base, loaded strictly; or ``'random'``: weights drawn with the
            config's seed.

    Raises:
        UserError: for a checkpoint that does not exist.
        RuntimeError: for one that does not fit; it names the weights.
        ValueError: for a config without a backbone.
    """
    require_checkpoint(checkpoint)
    model = dict(config.get('model') or {})
    # the Runner lets a top-level data_preprocessor stand in for the model's own
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    set_random_seed(seed_of(config))
    student = Student(model)
    if checkpoint == RANDOM:
        with _warnings_only():
            student.init_weights()
    else:
        report, converted = load_pretrained(student.backbone, checkpoint, 'backbone.')
        for note in (*report.notes, converted and f'{checkpoint}: {converted}'):
            if note:
                logging.getLogger(__name__).warning(note)
    return student.eval()


def require_checkpoint(checkpoint: str) -> None:
    """Refuse a checkpoint that does not exist.

    Raises:
        UserError: where ``checkpoint`` is no file, nor ``'random'``.
    """
    if checkpoint != RANDOM and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint!r} does not exist')


def seed_of(config: Config) -> int:
    """``randomness.seed`` of a config, or 0."""
    return (config.get('randomness') or {}).get('seed') or 0


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Leave out the host's lines on how each weight was drawn."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _drop_pretrained(settings: dict) -> dict:
    """A copy whose ``init_cfg`` loads no file."""
    settings = copy.deepcopy(dict(settings))
    init = settings.get('init_cfg')
    steps = init if isinstance(init, (list, tuple)) else [init]
    kept = [step for step in steps if step and not is_pretrained(step)]
    if init is not None and len(kept) < len(steps):
        settings.pop('init_cfg')
        if kept:
            settings['init_cfg'] = kept
    return settings


def _no_mask(backbone: nn.Module) -> dict[str, None]:
    parameters = inspect.signature(backbone.forward).parameters
    return {'mask': None} if 'mask' in parameters else {}
