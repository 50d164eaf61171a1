"""The most bytes of tensors that live at once while a function runs."""

import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Ledger(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.holders, self.live, self.peak = Counter(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return result

    def _note(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not self.holders[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self.holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key, size):
        self.holders[key] -= 1
        if not self.holders[key]:
            self.live -= size


def peak_bytes(function, *args, **kwargs):
    """Storages that operations returned, views counted once."""
    with _Ledger() as ledger:
        function(*args, **kwargs)
    return ledger.peak
