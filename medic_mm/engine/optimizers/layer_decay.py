"""Optimizer groups by layer depth and weight decay, for any model with a backbone."""

from __future__ import annotations

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.helpers import unwrapped
from medic_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

#: Ends of the names of parameters without weight decay, whatever their shape; a number
#: may follow (``bias1``).
NO_DECAY_ENDINGS = ('bias', 'token', 'pos_embed', 'relative_position_bias_table')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """One parameter group per (layer depth, decayed or not).

    The learning rate of a parameter at depth l of n is
    ``lr * layer_decay_rate ** (n - 1 - l)``; depths come from the backbone's own
    ``get_layer_depth``, whatever is outside the backbone has the full rate. Norms,
    biases, LayerScale, tokens and position embeddings have no weight decay. Frozen
    parameters are left out.

    Works for algorithms, mmpretrain classifiers and mmseg segmentors whose backbone has
    ``get_layer_depth`` (mmpretrain's ViT and BEiT families). The hosts' constructors
    make one group per parameter, or refuse mmpretrain's ViT inside mmseg.

    Args:
        optim_wrapper_cfg: As in the host.
        paramwise_cfg: ``dict(layer_decay_rate=R)``, R in (0, 1]; default 1.

    Raises:
        UserError: for other keys, a rate out of range, or a rate below 1 with a
            backbone that cannot tell its depths.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        unknown = sorted(set(self.paramwise_cfg) - {'layer_decay_rate'})
        if unknown:
            raise UserError(
                f'paramwise_cfg has unknown keys {unknown}: '
                'LayerDecayOptimWrapperConstructor takes layer_decay_rate only'
            )
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        require_number(self, 'layer_decay_rate', rate, above=0, high=1)
        self.rate = float(rate)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer over the groups and wrap it."""
        model = unwrapped(model)
        optimizer = OPTIMIZERS.build(
            {**self.optimizer_cfg, 'params': self.param_groups(model)}
        )
        wrapper = {'type': 'OptimWrapper', **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args=dict(optimizer=optimizer))

    def param_groups(self, model: nn.Module) -> list[dict]:
        """Groups of trainable parameters, shallow layers first."""
        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            layer, num_layers = self._depth(model, name)
            spared = name.rstrip('0123456789').endswith(NO_DECAY_ENDINGS)
            decayed = parameter.ndim > 1 and not spared
            scale = self.rate ** (num_layers - 1 - layer)
            group = groups.setdefault(
                (layer, decayed),
                {'params': [], 'layer_id': layer, 'lr_scale': scale},
            )
            group['params'].append(parameter)
            if self.base_lr is not None:
                group['lr'] = self.base_lr * scale
            if self.base_wd is not None:
                group['weight_decay'] = self.base_wd if decayed else 0.0
        ordered = [groups[key] for key in sorted(groups)]
        MMLogger.get_current_instance().info(
            '%d parameters in %d optimizer groups, layer decay rate %g.',
            sum(len(group['params']) for group in ordered),
            len(ordered),
            self.rate,
        )
        return ordered

    def _depth(self, model: nn.Module, name: str) -> tuple[int, int]:
        if self.rate == 1:
            return 0, 1
        backbone = getattr(model, 'backbone', model)
        depth_of = getattr(backbone, 'get_layer_depth', None)
        if depth_of is None:
            raise UserError(
                f'layer_decay_rate={self.rate} needs a backbone with get_layer_depth, '
                f'but {type(backbone).__name__} has none: use 1.0'
            )
        return depth_of(name, 'backbone.')
