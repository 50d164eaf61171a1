"""Strict loading of a pre-trained backbone, in any config of OpenMMLab."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from medic_mm.checkpoints.openmmlab import load_pretrained, take_pretrained
from medic_mm.checkpoints.strict import LoadReport
from medic_mm.datasets.data_preprocessor import require_rgb
from medic_mm.errors import UserError
from medic_mm.helpers import unwrapped
from medic_mm.registry import HOOKS


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Loads ``model.backbone.init_cfg`` in place of OpenMMLab, strictly.

    OpenMMLab only warns of weights that are missing, so that a wrong prefix, a backbone
    that ignores the prefix, or a missing LayerScale trains from random weights in
    silence. This hook takes the ``Pretrained`` step out of the backbone's ``init_cfg``
    before OpenMMLab comes to it, reads the file itself (tensors only) once all other
    weights are drawn, reports what was loaded, and refuses every gap that is not named
    here. A file in the names of another code base (timm, the official MAE, Hugging
    Face's ViTMAE, the released MEDiC, a tower of open_clip) is converted, and the log
    says so. :class:`StrictWeightsHook` does the same for other parts of the model.

    Works in any config with ``model.backbone``: classifiers of mmpretrain, segmentors
    of mmseg, also with OpenMMLab's own ``tools/train.py``. Weights that come from
    ``load_from`` or from a resumed run are left alone.

    Args:
        new: Beginnings of names that the backbone may have beyond the file. Default:
            ``ln2.``, the norm after the mean of the patch tokens, which pre-training
            does not have.
        left: Beginnings of names that the file may have beyond the backbone. Default:
            the final norms ``ln1.`` and ``ln2.``, which other outputs do without, and
            the ``mask_token`` that BEiT's pre-training keeps in its backbone.
        rgb_inputs: The data set gives RGB arrays (mmpretrain's ``CIFAR10``), so that
            the data preprocessor is not to swap channels.

    Raises:
        UserError: before the first step, where no checkpoint is named, or the network
            would see BGR images, which pre-training did not; for no such file, and for
            a file that carries code, is torn, has no backbone below the
            prefix, or does not fit; it names the weights.
    """

    # before hooks that look at the model before training (k-NN)
    priority = 'VERY_HIGH'

    def __init__(
        self,
        new: Sequence[str] = ('ln2.',),
        left: Sequence[str] = ('ln1.', 'ln2.', 'mask_token'),
        rgb_inputs: bool = False,
    ) -> None:
        self.new = tuple(new)
        self.left = tuple(left)
        self.rgb_inputs = rgb_inputs
        self.report: LoadReport | None = None
        self._step: dict | None = None
        self._replaced = False

    def before_run(self, runner: Runner) -> None:
        """Take the file away from OpenMMLab, which loads without checking."""
        preprocessor = getattr(unwrapped(runner.model), 'data_preprocessor', None)
        if preprocessor is not None:
            require_rgb(preprocessor, rgb_inputs=self.rgb_inputs or None)
        steps = take_pretrained(_backbone(runner))
        if steps:
            self._step = steps[-1]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note that ``load_from`` or a resumed run has given all weights."""
        self._replaced = True

    def before_train(self, runner: Runner) -> None:
        """Load the backbone and report, before the first step."""
        if self._replaced:
            return
        if self._step is None:
            runner.logger.warning(
                'The backbone starts from random weights: its init_cfg names no '
                'checkpoint.'
            )
            return
        path, prefix = self._step.get('checkpoint'), self._step.get('prefix')
        if not path:
            raise UserError(
                'model.backbone.init_cfg.checkpoint is not set: name the pre-trained '
                'file by `--pretrained FILE` (or by --cfg-options '
                'model.backbone.init_cfg.checkpoint=FILE); `--pretrained random` '
                'trains from random weights'
            )
        report, converted = load_pretrained(
            _backbone(runner), str(path), prefix, new=self.new, left=self.left
        )
        self.report = report
        if converted:
            runner.logger.info(f'{path} is converted: {converted}.')
        total = len(report.loaded) + len(report.missing)
        runner.logger.info(
            f'Backbone from {path}: {len(report.loaded)} of {total} weights loaded; '
            f'{report.differences()}.'
        )


def _backbone(runner: Runner) -> nn.Module:
    model = unwrapped(runner.model)
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        raise UserError(
            f'{type(model).__name__} has no backbone: PretrainedBackboneHook needs '
            'model.backbone'
        )
    return backbone
