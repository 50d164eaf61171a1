"""Strict loading of a pre-trained backbone, in any host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from medic_mm.checkpoints.backbone import LoadReport, load_backbone
from medic_mm.helpers import listed, type_name, unwrapped
from medic_mm.models.data_preprocessor import require_rgb
from medic_mm.registry import HOOKS


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Loads ``model.backbone.init_cfg`` in place of the host, strictly.

    The hosts only warn of weights that are missing, so that a wrong prefix, a backbone
    that ignores the prefix, or a missing LayerScale trains from random weights in
    silence. They also run code that a checkpoint carries. This hook takes the
    ``Pretrained`` step out of the backbone's ``init_cfg`` before the host comes to it,
    reads the file itself (tensors only) once all other weights are drawn, reports what
    was loaded, and refuses every gap that is not named here.

    Works in any config with ``model.backbone``: classifiers of mmpretrain, segmentors
    of mmseg, with the hosts' own ``tools/train.py`` as well. Weights that come from
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
        ValueError: before the first step, where no checkpoint is named, or the network
            would see BGR images, which pre-training did not.
        FileNotFoundError: for no such file.
        RuntimeError: for a file that carries code, is torn, has no backbone below the
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
        """Take the file away from the host, which loads without checking."""
        preprocessor = getattr(unwrapped(runner.model), 'data_preprocessor', None)
        if preprocessor is not None:
            require_rgb(preprocessor, rgb_inputs=self.rgb_inputs or None)
        backbone = _backbone(runner)
        steps = getattr(backbone, 'init_cfg', None) or []
        steps = [steps] if isinstance(steps, dict) else list(steps)
        named = [step for step in steps if _is_pretrained(step)]
        if named:
            self._step = dict(named[-1])
            backbone.init_cfg = [s for s in steps if not _is_pretrained(s)] or None

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
        path, prefix = self._step.get('checkpoint'), self._step.get('prefix') or ''
        if not path:
            raise ValueError(
                'model.backbone.init_cfg.checkpoint is not set: name the pre-trained '
                'file by `--pretrained FILE` (or by --cfg-options '
                'model.backbone.init_cfg.checkpoint=FILE); `--pretrained random` '
                'trains from random weights'
            )
        if prefix and not prefix.endswith('.'):
            prefix += '.'
        backbone = _backbone(runner)
        report = load_backbone(backbone, path, prefix=prefix, strict=False)
        self._refuse_gaps(type(backbone).__name__, path, report)
        self.report = report
        total = len(report.loaded) + len(report.missing)
        runner.logger.info(
            f'Backbone from {path}: {len(report.loaded)} of {total} weights loaded; '
            f'new in the network: {listed(report.missing)}; '
            f'left in the file: {listed(report.unexpected)}'
            f'{"".join(f"; {note}" for note in report.notes)}.'
        )

    def _refuse_gaps(self, name: str, path: str, report: LoadReport) -> None:
        missing = _beyond(report.missing, self.new)
        unexpected = _beyond(report.unexpected, self.left)
        if missing or unexpected:
            raise RuntimeError(
                f'checkpoint {path} does not fit {name}: missing {listed(missing)}; '
                f'unexpected {listed(unexpected)}{_advice(missing, unexpected)}'
            )


def _backbone(runner: Runner) -> nn.Module:
    model = unwrapped(runner.model)
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        raise ValueError(
            f'{type(model).__name__} has no backbone: PretrainedBackboneHook needs '
            'model.backbone'
        )
    return backbone


def _is_pretrained(step: dict) -> bool:
    return type_name(step) in ('Pretrained', 'PretrainedInit')


def _beyond(names: Iterable[str], allowed: tuple[str, ...]) -> list[str]:
    return [name for name in names if not name.startswith(allowed)]


def _advice(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The likely cause, where names tell it."""
    if any('relative_position' in name for name in unexpected):
        return (
            ' (pre-training had relative positions: use the config beit-*_medic-pre_*, '
            "whose backbone is mmpretrain's BEiTViT)"
        )
    if any('relative_position' in name for name in missing):
        return (
            ' (pre-training had absolute positions: use the config vit-*, whose '
            "backbone is mmpretrain's VisionTransformer)"
        )
    if missing and all('gamma' in name for name in missing):
        return (
            ' (pre-training had no LayerScale: set '
            'model.backbone.layer_scale_init_value=0)'
        )
    if unexpected and all('gamma' in name for name in unexpected):
        return (
            ' (pre-training had LayerScale: set '
            'model.backbone.layer_scale_init_value to its value, 0.1 for MEDiC)'
        )
    if any(name.startswith(('layers.', 'blocks.')) for name in unexpected):
        return ' (another architecture, or another layout of names)'
    return ''
