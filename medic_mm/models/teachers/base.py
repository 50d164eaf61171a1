"""What every frozen teacher shares: input, freezing, and where it lives."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.dist import barrier, get_rank
from mmengine.logging import MMLogger
from torch import Tensor, nn

from medic_mm.checks import require, require_number, require_numbers
from medic_mm.errors import UserError
from medic_mm.models.vit.arguments import require_size
from medic_mm.models.vit.attention import ClassAttention, attention_over_heads
from medic_mm.models.vit.qkv import QKV
from medic_mm.randomness import seeded_construction


@dataclass
class TeacherOutput:
    """Teacher features for a batch.

    Attributes:
        patch_tokens: ``(B, L, D)``, row-major over the teacher's grid.
        cls_token: ``(B, D)``.
        attention: ``(B, L, L)`` or None. Softmaxed attention of one block, averaged
            over heads, class token's row and column dropped (rows sum to less than 1).
    """

    patch_tokens: Tensor
    cls_token: Tensor
    attention: Tensor | None = None


class FrozenTeacher(nn.Module):
    """Base of every teacher: a network that is only read, never trained or saved.

    The network is held outside the module tree. So it has no part in ``state_dict``,
    ``parameters()`` (optimizer groups, DDP buckets), ``train()`` and a parent's
    ``init_cfg``; copies of the model (mmengine's EMA hook) share it. It follows the
    batch's device and computes under the caller's autocast.

    A subclass builds its network under ``medic_mm.randomness.seeded_construction``,
    hands it to ``super().__init__``, and implements :meth:`load_weights` and
    :meth:`encode`.

    Attributes:
        gives_relations: Whether :meth:`encode` gives :class:`QKV` instead of tokens.

    Args:
        network: The network. It is frozen and put into eval mode here.
        mean: Channel means that the network was trained with, for RGB in 0..1.
        std: Their standard deviations.
        embed_dims: Width D of the tokens returned.
        patch_size: Side of a patch in pixels.
        input_size: Side of the square image the network gets; other sizes are resized
            (bicubic, with antialias).
        input_norm: ``'teacher'`` re-normalises the student's batch to the network's
            statistics; ``'student'`` feeds it as it is (the released MEDiC code's way).
        output_grid: ``(rows, columns)`` to which patch tokens are resized (bilinear)
            where the student's grid differs. Default: the network's own grid.
        random_weights: Run with random weights, the same on all ranks. For tests and
            dry runs only; the one way to have a teacher without loaded weights.

    Raises:
        ValueError: for an unknown ``input_norm`` or an ``input_size`` that
            ``patch_size`` does not divide.
    """

    gives_relations = False

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        embed_dims: int,
        patch_size: int,
        input_size: int,
        input_norm: str = 'teacher',
        output_grid: Sequence[int] | None = None,
        random_weights: bool = False,
    ) -> None:
        super().__init__()
        require(
            input_norm in ('teacher', 'student'),
            f"input_norm={input_norm!r} is unknown: use 'teacher' or 'student'",
        )
        require_number(self, 'input_size', input_size, low=1, integer=True)
        require_number(self, 'patch_size', patch_size, low=1, integer=True)
        require_size(type(self).__name__, input_size, patch_size)
        if output_grid is not None:
            require(
                len(output_grid) == 2,
                f'output_grid={output_grid!r} of {type(self).__name__} must be two '
                'numbers: rows and columns',
            )
            require_numbers(self, 'output_grid', output_grid, low=1, integer=True)
        self.hold(network)
        self._mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self.embed_dims = embed_dims
        self.patch_size = patch_size
        self.input_size = input_size
        self.input_norm = input_norm
        side = input_size // patch_size
        self.native_grid = (side, side)
        self.grid = tuple(output_grid) if output_grid is not None else self.native_grid
        self.random_weights = random_weights
        self.ready = False

    @property
    def gives_attention(self) -> bool:
        """Whether :meth:`encode` gives attention.

        Tried on one image here; a subclass may know without a pass.
        """
        trial = copy.copy(self)  # whatever an encoder notes down stays with the copy
        size, length = self.input_size, math.prod(self.native_grid)
        weight = next(self.network.parameters())
        try:
            with torch.no_grad(), seeded_construction():
                image = torch.zeros(1, 3, size, size, device=weight.device)
                found = getattr(trial.encode(image, attention=True), 'attention', None)
        except NotImplementedError:
            return True  # asked before it has an answer
        except Exception:
            return False
        return found is not None and tuple(found.shape) == (1, length, length)

    @property
    def network(self) -> nn.Module:
        """The frozen network."""
        return self._held[0]

    @property
    def uncached(self) -> FrozenTeacher:
        """The teacher that computes: this one, or of a cache the one behind it."""
        return self

    def hold(self, network: nn.Module) -> None:
        """Freeze ``network`` and take it as the teacher's, in place of any before."""
        network.requires_grad_(False)
        network.eval()  # of which mmpretrain's backbones return None
        # a tuple hides the network from nn.Module's registration
        self._held = (network,)

    def load_weights(self) -> None:
        """Load the weights into :attr:`network`, strictly."""
        raise NotImplementedError

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput | QKV:
        """Run the network on ``images (B, 3, input_size, input_size)``.

        A teacher of relations returns :class:`QKV`, which is not resized.
        """
        raise NotImplementedError

    def encode_class_attention(self, images: Tensor) -> ClassAttention:
        """Attention of the class token in the block that :meth:`encode` reads.

        Optional, for pictures alone; :meth:`ClassAttention.from_rows` makes the maps.

        Raises:
            UserError: where it cannot be read.
        """
        raise _unreadable(self)

    def init_weights(self) -> None:
        """Load the weights, once; rank 0 fetches first, so that one rank downloads."""
        if self.ready:
            return
        if self.random_weights:
            MMLogger.get_current_instance().warning(
                f'{type(self).__name__} has random weights (random_weights=True): fit '
                'for dry runs and tests only.'
            )
        else:
            if get_rank() != 0:
                barrier()
            self.load_weights()
            if get_rank() == 0:
                barrier()
        self.ready = True

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,
        mean: Tensor,
        std: Tensor,
        data_samples: Sequence | None = None,
        attention: bool = False,
    ) -> TeacherOutput | QKV:
        """Encode a batch of the student.

        Args:
            images: ``(B, 3, H, W)``, normalised by the student's preprocessor.
            mean: The preprocessor's channel means, ``(3, 1, 1)`` on the 0..255 scale.
            std: The preprocessor's standard deviations, as ``mean``.
            data_samples: The batch's data samples; only a cache reads them.
            attention: Also return the attention of the chosen block.

        Raises:
            RuntimeError: before :meth:`init_weights`.
        """
        self._require_weights()
        if attention and self.grid != self.native_grid:
            raise UserError(
                f'attention is on the teacher grid {self.native_grid} but '
                f'output_grid={self.grid}: choose an input_size whose grid matches'
            )
        self._follow(images.device)
        out = self.encode(self._prepare(images, mean, std), attention)
        if self.grid != self.native_grid and isinstance(out, TeacherOutput):
            out.patch_tokens = self._resize_tokens(out.patch_tokens)
        return out

    @torch.no_grad()
    def class_attention(
        self, images: Tensor, mean: Tensor, std: Tensor
    ) -> ClassAttention:
        """What the class token attends to in the block that the output is taken from.

        Each head's map, or the mean of all, as ``mean_of`` says. A cache asks the
        teacher behind it.

        Args:
            images: As in :meth:`forward`, as ``mean`` and ``std`` are.
            mean: The preprocessor's channel means.
            std: The preprocessor's standard deviations.

        Raises:
            UserError: for a teacher whose class attention cannot be read.
        """
        self._require_weights()
        self._follow(images.device)
        return self.encode_class_attention(self._prepare(images, mean, std))

    @torch.no_grad()
    def patch_attention(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Attention between patches, mean of the heads, as evolved masks take it.

        Of a teacher of relations it is computed from its queries and keys. A cache
        asks the teacher behind it. Arguments as in :meth:`class_attention`.

        Returns:
            float32 ``(B, L, L)`` on the CPU over :attr:`native_grid`, row = the patch
            that looks, softmaxed over all tokens.

        Raises:
            UserError: for a teacher whose attention cannot be read.
        """
        out = self(images, mean, std, attention=not self.gives_relations)
        if isinstance(out, QKV):
            maps = attention_over_heads(out.query.float(), out.key.float())
            return (maps / out.query.shape[1])[:, 1:, 1:].cpu()
        if out.attention is None:
            raise _unreadable(self)
        return out.attention.float().cpu()

    def fingerprint(self) -> str:
        """SHA-256 over weights and settings: equal fingerprints, equal outputs.

        Raises:
            RuntimeError: before :meth:`init_weights`.
        """
        self._require_weights()
        settings = (
            type(self).__name__,
            self.input_size,
            self.input_norm,
            self.grid,
            self._mean.flatten().tolist(),
            self._std.flatten().tolist(),
        )
        digest = hashlib.sha256(repr((settings, self.extra_settings())).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        return digest.hexdigest()

    def statistics(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Mean and std of the network, ``(3, 1, 1)`` on the scale of 0 to 255."""
        return 255 * self._mean.to(device), 255 * self._std.to(device)

    def has_statistics(self, mean: Tensor, std: Tensor) -> bool:
        """Whether images with these statistics are what the network takes."""
        if self.input_norm == 'student' or mean.is_meta:  # built for its shapes alone
            return True
        given = (value.cpu().float().expand(3, 1, 1) for value in (mean, std))
        own = self.statistics(torch.device('cpu'))
        return all(
            torch.allclose(a, b, rtol=1e-4) for a, b in zip(given, own, strict=True)
        )

    def extra_settings(self) -> tuple:
        """Settings of a subclass that change its outputs, for :meth:`fingerprint`."""
        return ()

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    def _require_weights(self) -> None:
        if not self.ready:
            raise RuntimeError(
                f'{type(self).__name__} has no weights yet: call init_weights() first '
                '(the Runner does so before training)'
            )

    def _follow(self, device: torch.device) -> None:
        # asked first, since moving visits every weight even where all are in place
        if next(self.network.parameters()).device != device:
            self.network.to(device)

    def normalise(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The student's batch in the network's statistics; see :meth:`forward`."""
        if self.input_norm == 'student':
            return images
        # kept on the device, so that no step waits for a copy to it
        self._mean = self._mean.to(images.device)
        self._std = self._std.to(images.device)
        scale = std.to(self._std) / (255 * self._std)
        shift = (mean.to(self._mean) / 255 - self._mean) / self._std
        return torch.addcmul(shift.to(images), images, scale.to(images))

    def _prepare(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        images = self.normalise(images, mean, std)
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode='bicubic', antialias=True)
        return images

    def _resize_tokens(self, tokens: Tensor) -> Tensor:
        batch, _, width = tokens.shape
        maps = tokens.transpose(1, 2).reshape(batch, width, *self.native_grid)
        maps = F.interpolate(maps, self.grid, mode='bilinear', align_corners=False)
        return maps.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, L, D)


def _unreadable(teacher: FrozenTeacher) -> UserError:
    return UserError(f'attention cannot be read from {type(teacher).__name__}')
