"""Random augmentations drawn once per image and view."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose

from medic_mm.checks import require_number
from medic_mm.registry import TRANSFORMS


@contextlib.contextmanager
def seeded_generators(
    seed: int, *spawn_key: int, numpy_generator: np.random.MT19937
) -> Iterator[None]:
    """Seed the global generators of random, numpy and torch (CPU), then put them back.

    These are what the hosts' transforms draw from. numpy's is exchanged, which is many
    times faster than saving its state; the spare value that its ``randn`` may hold
    back is lost by that.

    Args:
        seed: Together with ``spawn_key`` the entropy of a ``numpy.SeedSequence``.
        spawn_key: Which stream of the seed.
        numpy_generator: Takes the place of numpy's meanwhile; its state is overwritten.
    """
    words = np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(6)
    first, second, *rest = words.tolist()
    python_state = random.getstate()
    torch_state = torch.default_generator.get_state()
    ambient = np.random.get_bit_generator()
    np.random.set_bit_generator(numpy_generator)
    try:
        random.seed(first)
        # not torch.manual_seed: that would also reseed the accelerator's generators
        torch.default_generator.manual_seed(second)
        np.random.seed(rest)  # noqa: NPY002
        yield
    finally:
        random.setstate(python_state)
        torch.default_generator.set_state(torch_state)
        np.random.set_bit_generator(ambient)


@TRANSFORMS.register_module()
class FixedView(BaseTransform):
    """Draws random augmentations from a seed of the image and the view.

    Image ``i`` has ``num_views`` views. View ``v`` looks the same in every epoch, run
    and worker: the global generators are seeded from ``(seed, i, v)`` while the
    wrapped transforms run, and then put back. So what is drawn later, masks above all,
    stays as random as without this transform. With one view nothing of the ambient
    streams is used; with more, ``v`` is one draw from numpy's.

    Everything random that changes the pixels must stand inside. Transforms that own
    a generator (albumentations from version 2 on) are out of its reach.

    **Required Keys:**

    - sample_idx (set by ``mmengine.BaseDataset``)
    - view (optional: forces that view)

    **Added Keys:**

    - view (int)

    Args:
        transforms: The augmentations: configs or callables.
        num_views: Views per image.
        seed: Another seed gives other views.

    Raises:
        ValueError: for a ``num_views`` below 1, a negative seed, a sample without
            ``sample_idx``, or a forced view out of range.
    """

    def __init__(
        self,
        transforms: Sequence[dict | Callable],
        num_views: int = 1,
        seed: int = 0,
    ) -> None:
        require_number(self, 'num_views', num_views, low=1, integer=True)
        require_number(self, 'seed', seed, low=0, integer=True)
        self.wrapped = Compose(transforms)
        self.num_views = num_views
        self.seed = seed
        # one of its own, so that views inside views do not disturb each other
        self._generator = np.random.MT19937(0)

    def transform(self, results: dict) -> dict | None:
        """Augment ``results``; None where a wrapped transform drops the sample."""
        if 'sample_idx' not in results:
            raise ValueError(
                "FixedView needs results['sample_idx'], the image's index: use a data "
                'set that derives from mmengine.BaseDataset, which sets it'
            )
        view = self._choose_view(results.get('view'))
        results['view'] = view
        place = results['sample_idx'], view
        with seeded_generators(self.seed, *place, numpy_generator=self._generator):
            return self.wrapped(results)

    def _choose_view(self, forced: int | None) -> int:
        if forced is None:
            if self.num_views == 1:
                return 0
            return int(np.random.randint(self.num_views))  # noqa: NPY002
        if not 0 <= forced < self.num_views:
            raise ValueError(
                f"results['view']={forced} must be within 0..{self.num_views - 1}, "
                f'since num_views={self.num_views} of FixedView'
            )
        return forced

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(transforms={self.wrapped.transforms}, '
            f'num_views={self.num_views}, seed={self.seed})'
        )
