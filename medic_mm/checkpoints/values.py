"""What a tensor of a file must be to serve as a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medic_mm.errors import FileError
from medic_mm.helpers import listed


def unusable(value: Any) -> str:
    """Why a value cannot be a weight, to come before its name; empty where it can."""
    if not isinstance(value, Tensor):
        return f'a {type(value).__name__} in place of a tensor:'
    if value.is_nested:
        return 'nested tensors:'
    if value.layout != torch.strided:
        return f'sparse tensors ({value.layout}):'
    if value.is_quantized:
        return f'quantised tensors ({value.dtype}):'
    if value.is_meta:
        return 'tensors without values (meta device):'
    if value.is_complex():
        return f'complex numbers ({value.dtype}) in'
    return ''


def not_finite(value: Tensor) -> bool:
    """Whether a usable tensor has a NaN or an infinity."""
    if not value.is_floating_point() or not value.numel():
        return False
    if value.dtype.itemsize == 1:  # torch has no comparison of 8-bit floats
        value = value.float()
    # no copy, and a NaN anywhere makes both ends NaN
    return not all(end.isfinite() for end in torch.aminmax(value.detach()))


def require_numbers(
    weights: Mapping[str, Any], origin: str, integers: Iterable[str] = ()
) -> None:
    """Refuse weights that no network of floating-point numbers can use.

    Args:
        weights: By name.
        origin: Where they come from, to begin the sentence.
        integers: Ends of names that may have integers.

    Raises:
        FileError: names the weights that are not plain tensors, or have integers, NaN
            or infinity.
    """
    ends = tuple(integers)
    reasons: dict[str, list[str]] = {}
    for name, value in weights.items():
        reason = unusable(value)
        if not reason and not value.is_floating_point() and not name.endswith(ends):
            reason = f'{value.dtype} in place of floating-point numbers in'
        if not reason and not_finite(value):
            reason = 'NaN or infinity in'
        if reason:
            reasons.setdefault(reason, []).append(name)
    if reasons:
        raise FileError(f'{origin} cannot be used: {reasons_text(reasons)}')


def reasons_text(reasons: Mapping[str, Iterable[str]]) -> str:
    """Names by reason: ``'NaN in a, b; sparse tensors: c'``."""
    return '; '.join(f'{reason} {listed(names)}' for reason, names in reasons.items())
