"""Exact nearest neighbours by cosine similarity, in bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.errors import UserError

#: Sizes that bound the memory and leave the result as it is.
QUERY_CHUNK = 512
BANK_CHUNK = 16384

_LOW = 0xFFFFFFFF
_TINY = torch.finfo(torch.float32).tiny
_LEAST_KEY = torch.iinfo(torch.int64).min


def nearest_neighbours(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    device: torch.device | str | None = None,
    query_chunk: int = QUERY_CHUNK,
    bank_chunk: int = BANK_CHUNK,
) -> tuple[Tensor, Tensor]:
    """Find the k bank features of greatest cosine similarity to each query.

    Besides chunks it holds 8 bytes for each of the ``Q * k`` neighbours.

    Args:
        bank: ``(N, D)``.
        queries: ``(Q, D)``.
        k: At most N.
        device: Where to compute; default: where the queries are.
        query_chunk: Queries handled at once.
        bank_chunk: Bank features handled at once.

    Returns:
        Similarities, float32 ``(Q, k)``, greatest first, and their places in the bank,
        int64 ``(Q, k)``; both on the CPU. Equal similarities are in the bank's order.

    Raises:
        UserError: for ``k`` out of range, or features with NaN or infinity.
    """
    if not 1 <= k <= len(bank):
        raise UserError(f'k={k} must be 1 to {len(bank)}, the size of the bank')
    device = queries.device if device is None else torch.device(device)
    best = torch.full((len(queries), k), _LEAST_KEY, dtype=torch.int64)
    for first in range(0, len(bank), bank_chunk):
        candidates = _normalise(bank[first : first + bank_chunk], 'train_feats', device)
        for start in range(0, len(queries), query_chunk):
            rows = slice(start, start + query_chunk)
            similarity = _normalise(queries[rows], 'test_feats', device) @ candidates.T
            keys = _best_keys(similarity, first, k).cpu()
            best[rows] = torch.cat([best[rows], keys], dim=1).topk(k).values
    return _unpack(best)


def _normalise(features: Tensor, name: str, device: torch.device) -> Tensor:
    features = features.to(device, torch.float32)
    # squares of very small or large values leave float32: scale first
    largest = features.abs().amax(dim=1, keepdim=True)
    if not torch.isfinite(largest).all():
        raise UserError(f'{name} has NaN or infinite values: the network diverged')
    return F.normalize(features / largest.clamp_min(_TINY), dim=1)


# A similarity and a place in the bank packed in one integer: greater similarity first,
# then the earlier place. topk promises no order of equal values; keys are never equal.


def _pack(similarity: Tensor, places: Tensor) -> Tensor:
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) + (_LOW - places)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = (keys >> 32).int()
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.view(torch.float32), _LOW - (keys & _LOW)


def _best_keys(similarity: Tensor, first: int, k: int) -> Tensor:
    """Keys of the k best of a chunk that begins at place ``first``, in no order."""
    width = similarity.shape[1]
    places = torch.arange(first, first + width, device=similarity.device)
    if width <= k:
        return _pack(similarity, places)
    values, columns = similarity.topk(k + 1)
    keys = _pack(values[:, :k], columns[:, :k] + first)
    # one more than asked for shows the rows where topk cut through equal values
    cut = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
    if len(cut):
        least = values[cut, k - 1 : k]
        tied = _first_equal(similarity[cut], least, k)
        tied_keys = torch.where(tied < 0, _LEAST_KEY, _pack(least, tied + first))
        greater = torch.where(values[cut, :k] > least, keys[cut], _LEAST_KEY)
        keys[cut] = torch.cat([greater, tied_keys], dim=1).topk(k).values
    return keys


def _first_equal(similarity: Tensor, value: Tensor, k: int) -> Tensor:
    """Columns of the first k entries of each row that equal its value; -1: no more."""
    columns = torch.arange(similarity.shape[1], device=similarity.device)
    # float32 counts exactly to 2**24, and its topk is faster than that of integers
    order = torch.where(similarity == value, -columns.float(), -torch.inf)
    return (-order.topk(k).values).nan_to_num(posinf=-1).long()
