"""The one strict loader: weights fit a network whole, or it stays as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medic_mm.errors import FileError
from medic_mm.helpers import listed


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight.

    Attributes:
        loaded: Names in the network that got their weights from the file.
        missing: Names in the network that the file does not have.
        unexpected: Names in the file, without the prefix, that the network lacks.
        notes: What was resized, copied or assumed.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def differences(self) -> str:
        """What is new in the network and left in the file, and notes, for a log."""
        return '; '.join(
            (
                f'new in the network: {listed(self.missing)}',
                f'left in the file: {listed(self.unexpected)}',
                *self.notes,
            )
        )


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Any],
    origin: str,
    remedy: str = '',
    new: Sequence[str] = (),
    left: Sequence[str] = (),
    copy: bool = True,
) -> LoadReport:
    """Load weights whole, or leave the network as it was and say what does not fit.

    The network's own load hooks run, so position embeddings of another image size are
    resized as the network does it.

    Args:
        model: The network, outside of wrappers.
        weights: Under its names.
        origin: Where they come from, to begin the sentence.
        remedy: What the user can do, to end it.
        new: Beginnings of names that may be missing in ``weights``; ``('',)`` is all.
        left: Beginnings of names that ``weights`` may have beyond the network.
        copy: False only checks whether the weights would load.

    Raises:
        FileError: where a weight is missing, left over, of another shape or kind
            (integers where the network has floating-point numbers, sparse, complex and
            the like), or has NaN or infinity. Weights that are left over may have any
            values.
    """
    tensors = _tensors(model)
    text = _reasons_text(
        (misfit(value, tensors[name]), name)
        for name, value in weights.items()
        if name in tensors
    )
    if not text:
        report, found, text = _try(model, weights)
        gaps = [name for name in report.missing if not name.startswith(tuple(new))]
        rest = [name for name in report.unexpected if not name.startswith(tuple(left))]
        if gaps or rest:
            gap_text = f'missing {listed(gaps)}; unexpected {listed(rest)}'
            text = f'{gap_text}; {text}' if text else gap_text
    if text:
        raise FileError(
            f'{origin} does not fit: {text}; {type(model).__name__} is left as it was'
            f'{". " if remedy else ""}{remedy}'
        )
    if copy:
        with torch.no_grad():
            for name, own in _tensors(model).items():
                if name in found:
                    own.copy_(found[name])
    return report


def misfit(value: Any, own: Tensor, shapes: bool = False) -> str:
    """Why a value cannot take a weight's place; empty where it can.

    Args:
        value: Of the file.
        own: The network's.
        shapes: Compare whole shapes; else a number of tokens may differ, which the
            network's own load hooks may change.
    """
    if reason := unusable(value):
        return reason
    if _kind(value) != _kind(own):
        return f'{value.dtype} in place of {own.dtype} in'
    if value.dim() != own.dim() or (shapes and value.shape != own.shape):
        return f'the shape {tuple(value.shape)} in place of {tuple(own.shape)} in'
    return 'NaN or infinity in' if not_finite(value) else ''


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

    def reason(name: str, value: Any) -> str:
        if problem := unusable(value):
            return problem
        if not value.is_floating_point() and not name.endswith(ends):
            return f'{value.dtype} in place of floating-point numbers in'
        return 'NaN or infinity in' if not_finite(value) else ''

    text = _reasons_text((reason(name, value), name) for name, value in weights.items())
    if text:
        raise FileError(f'{origin} cannot be used: {text}')


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


def _reasons_text(found: Iterable[tuple[str, str]]) -> str:
    """Names by reason, where there is one: ``'NaN in a, b; sparse tensors: c'``."""
    reasons: dict[str, list[str]] = {}
    for reason, name in found:
        if reason:
            reasons.setdefault(reason, []).append(name)
    return '; '.join(f'{reason} {listed(names)}' for reason, names in reasons.items())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Weights by name, that share their memory with the model's."""
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}


def _kind(value: Tensor) -> str:
    if value.dtype == torch.bool:
        return 'bool'
    return 'float' if value.is_floating_point() else 'integer'


class _Trial(nn.Module):
    """Loads into stand-ins for the model's weights, and returns what they became."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, weights: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        result = self.model.load_state_dict(weights, strict=False, assign=True)
        return result, _tensors(self.model)


def _try(
    model: nn.Module, weights: Mapping[str, Tensor]
) -> tuple[LoadReport, dict[str, Tensor], str]:
    """What loading would do: a report, the values after the hooks, and misfits."""
    own = {name: tuple(value.shape) for name, value in _tensors(model).items()}
    stand_ins: dict[str, Tensor] = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        blank = torch.empty_like(value, device='cpu')  # memory that nobody touches
        parameter = isinstance(value, nn.Parameter)
        stand_ins[f'model.{name}'] = nn.Parameter(blank, False) if parameter else blank
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            result, found = functional_call(_Trial(model), stand_ins, (weights,))
    except MemoryError:
        raise
    except Exception as error:  # load hooks of OpenMMLab do not expect misfits
        text = str(error)
        reshaped = [
            f'{name} {tuple(value.shape)} in place of {own[name]}'
            for name, value in weights.items()
            if name in own and f'size mismatch for {name}:' in text
        ]
        reason = ' '.join(text.split()) or type(error).__name__
        text = f'size mismatch for {listed(reshaped)}' if reshaped else reason
        gaps = tuple(k for k in own if k not in weights)
        rest = tuple(k for k in weights if k not in own)
        return LoadReport((), gaps, rest), {}, text
    missing, unexpected = tuple(result.missing_keys), tuple(result.unexpected_keys)
    absent = set(missing)
    loaded = tuple(name for name in own if name not in absent)
    found = {name: value for name, value in found.items() if name not in absent}
    return LoadReport(loaded, missing, unexpected), found, ''
