"""Queries, keys and values of one attention block, split into heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from medic_mm.errors import UserError

_PARTS = {'q': 'query', 'k': 'key', 'v': 'value'}


@dataclass(frozen=True)
class QKV:
    """What a block's attention computes from, before any softmax.

    Attributes:
        query: ``(B, M, N, d)`` for M heads and N tokens, class token first.
        key: The same shape.
        value: The same shape.
    """

    query: Tensor
    key: Tensor
    value: Tensor

    def pair(self, relation: str) -> tuple[Tensor, Tensor]:
        """The two sides of a relation such as ``'qk'`` or ``'vv'``.

        Raises:
            UserError: for anything but two letters out of q, k and v.
        """
        if len(relation) != 2 or set(relation) - set(_PARTS):
            raise UserError(
                f'relation {relation!r} is unknown: use two letters out of q, k and v, '
                "such as 'qk' or 'vv'"
            )
        first, second = (getattr(self, _PARTS[letter]) for letter in relation)
        return first, second

    def without_cls(self) -> QKV:
        """Patch tokens alone: ``(B, M, N - 1, d)``."""
        return QKV(self.query[:, :, 1:], self.key[:, :, 1:], self.value[:, :, 1:])


def split_qkv(projected: Tensor, num_heads: int) -> QKV:
    """Split the output of a block's ``qkv`` layer into heads.

    Args:
        projected: ``(B, N, 3 * D)``: all queries, then all keys, then all values.
        num_heads: Number of heads M, which must divide D.

    Raises:
        UserError: where it does not.
    """
    batch, length, width = projected.shape
    if width % (3 * num_heads):
        raise UserError(
            f'{num_heads} heads do not divide the width {width // 3} of the block'
        )
    parts = projected.reshape(batch, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    return QKV(*parts.unbind(0))


def resplit_heads(features: Tensor, num_heads: int) -> Tensor:
    """Join heads and split them anew: ``(B, M, N, d)`` -> ``(B, num_heads, N, d')``.

    Source: the relation heads of MiniLMv2 (https://arxiv.org/abs/2012.15828).

    Raises:
        UserError: where ``num_heads`` does not divide the joint width.
    """
    batch, heads, length, width = features.shape
    if heads * width % num_heads:
        raise UserError(
            f'{num_heads} relation heads do not divide the width {heads * width}'
        )
    joint = features.transpose(1, 2).reshape(batch, length, num_heads, -1)
    return joint.transpose(1, 2)
