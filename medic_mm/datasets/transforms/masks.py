"""Transforms that draw a mask in the data worker."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from mmcv.transforms import BaseTransform
from torch import Tensor

from medic_mm.checks import require, require_number
from medic_mm.masking import block_mask, grid_mask, masked_count, random_mask
from medic_mm.masking.basic import check_blocks, check_grid
from medic_mm.registry import TRANSFORMS


class MaskTransform(BaseTransform):
    """Base of all transforms that draw one mask per image.

    A mask of your own is a subclass with :meth:`draw`, registered in ``TRANSFORMS``.
    Training, pictures and checks treat it as the built-in ones.

    **Added Keys:**

    - mask (bool array ``(rows, columns)``, True = hidden)

    Args:
        grid: Patches per side, or ``(rows, columns)``.
        mask_ratio: Share of patches to hide; the count is rounded down, as in BEiT.
        num_masked: The count itself, in place of the ratio.

    Raises:
        UserError: where a setting is not a number, or the count is not within 1..L-1:
            something must be hidden and something must be seen.
    """

    def __init__(
        self,
        grid: int | Sequence[int],
        mask_ratio: float = 0.4,
        num_masked: int | None = None,
    ) -> None:
        sides = (grid, grid) if isinstance(grid, Integral) else grid
        length = check_grid(self, sides)
        self.grid = (int(sides[0]), int(sides[1]))
        if num_masked is None:
            require_number(self, 'mask_ratio', mask_ratio, low=0, high=1)
            wanted = masked_count(length, mask_ratio)
        else:
            require_number(self, 'num_masked', num_masked, integer=True)
            wanted = int(num_masked)
        require(
            0 < wanted < length,
            f'{type(self).__name__} would hide {wanted} of {length} patches '
            f'(mask_ratio={mask_ratio}, num_masked={num_masked}): it must hide at '
            f'least 1 and at most {length - 1}',
        )
        self.num_masked = wanted

    def draw(self, batch: int, grid: tuple[int, int], num_masked: int) -> Tensor:
        """Masks from torch's global generator, which is seeded per worker.

        Returns:
            bool ``(batch, L)``, L = rows * columns, row-major, True = hidden;
            ``num_masked`` of them in each row.
        """
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Add ``results['mask']``."""
        mask = self.draw(1, self.grid, self.num_masked).view(self.grid).numpy()
        require(
            mask.dtype == bool and mask.sum() == self.num_masked,
            f'draw of {type(self).__name__} hides {mask.sum()} patches ({mask.dtype}): '
            f'return a bool mask that hides {self.num_masked}',
        )
        results['mask'] = mask
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(grid={self.grid}, num_masked={self.num_masked})'


@TRANSFORMS.register_module()
class RandomMask(MaskTransform):
    """Uniformly random mask; see :func:`medic_mm.masking.random_mask`."""

    draw = staticmethod(random_mask)


@TRANSFORMS.register_module()
class GridMask(MaskTransform):
    """Regular mask; see :func:`medic_mm.masking.grid_mask`.

    Its own ratio is 0.75, the default here.
    """

    draw = staticmethod(grid_mask)

    def __init__(
        self,
        grid: int | Sequence[int],
        mask_ratio: float = 0.75,
        num_masked: int | None = None,
    ) -> None:
        super().__init__(grid, mask_ratio, num_masked)


@TRANSFORMS.register_module()
class BlockMask(MaskTransform):
    """Block mask; see :func:`medic_mm.masking.block_mask`.

    Args:
        min_area: Least area of a rectangle in patches.
        min_aspect: Least aspect ratio of a rectangle.

    Other arguments, result and errors as :class:`MaskTransform`.
    """

    def __init__(
        self,
        grid: int | Sequence[int],
        mask_ratio: float = 0.4,
        num_masked: int | None = None,
        min_area: int = 16,
        min_aspect: float = 0.3,
    ) -> None:
        super().__init__(grid, mask_ratio, num_masked)
        check_blocks(self, min_area, min_aspect)
        self.shape = dict(min_area=min_area, min_aspect=min_aspect)

    def draw(self, batch: int, grid: tuple[int, int], num_masked: int) -> Tensor:
        """See :meth:`MaskTransform.draw`."""
        return block_mask(batch, grid, num_masked, **self.shape)
