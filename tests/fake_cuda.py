"""A GPU for machines that have none: shapes, types and devices, but no values.

Forward passes on it show what would go wrong on a real one: tensors on two devices,
types that autocast brings together, and each place where Python asks for a value or a
size that is known on the device alone, for which a step would have to wait.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

#: What asking for a value or for a size that depends on values raises.
WAITED = (
    torch._subclasses.fake_tensor.DataDependentOutputException,
    torch._subclasses.fake_tensor.DynamicOutputShapeException,
)


class FakeCUDA(FakeTensorMode):
    """While active, ``device='cuda'`` works; tensors on the CPU stay what they are."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        fakes = [leaf for leaf in tree_leaves(args) if isinstance(leaf, FakeTensor)]
        to_cuda = torch.device(kwargs.get('device') or 'cpu').type == 'cuda'
        if not fakes and not to_cuda:
            return func(*args, **kwargs)
        kwargs.pop('generator', None)  # a real one, which has no say here
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if any(fake.is_cuda for fake in fakes) and not all(
            leaf.is_cuda for leaf in tree_leaves(out) if isinstance(leaf, Tensor)
        ):
            raise WAITED[0](func)
        return out


def to_fake_cuda(model: nn.Module) -> nn.Module:
    """Move a model in place, as ``model.cuda()`` would; inside :class:`FakeCUDA`."""
    moved: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, BaseDataPreprocessor):
            module._device = torch.device('cuda')
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is None:
                    continue
                if id(value) not in moved:
                    moved[id(value)] = _like(value)
                held[name] = moved[id(value)]
    return model


def _like(value: Tensor) -> Tensor:
    fake = torch.empty(value.shape, dtype=value.dtype, device='cuda')
    if isinstance(value, nn.Parameter):
        return nn.Parameter(fake, requires_grad=value.requires_grad)
    return fake
