"""Weights of teachers: read safely, say what they are, load strictly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from torch import Tensor

from medic_mm.checkpoints.pickled import TorchScript
from medic_mm.checkpoints.reading import find_weights, read_checkpoint
from medic_mm.checkpoints.sizes import Grid, find_grid, interpolate, recorded_grid
from medic_mm.checkpoints.strict import unusable
from medic_mm.errors import MissingFileError, UserError
from medic_mm.helpers import nearest

# scalars that only OpenAI's archives hold; those weights were trained with QuickGELU
OPENAI_MARKERS = ('input_resolution', 'context_length', 'vocab_size')
FILE_SUFFIXES = ('.safetensors', '.pt', '.pth', '.bin', '.ckpt', '.tar')


@dataclass
class WeightFile:
    """What a local file of weights holds.

    Attributes:
        path: The file.
        state_dict: Its tensors, on the CPU; floating ones in fp32.
        quick_gelu: Whether the weights were trained with QuickGELU, where the file
            says so (TorchScript archives and OpenAI's files do, others do not: None).
        grid: Rows and columns of patches, where the file says so.
    """

    path: Path
    state_dict: dict[str, Tensor]
    quick_gelu: bool | None = None
    grid: Grid | None = None

    def positions_on(
        self, own: Grid, name: str, positions: Tensor, extra: int = 1
    ) -> Tensor:
        """Position embeddings of oblong images, resized to a network's own grid.

        Those of square images are left to the network's library, which takes any for
        such. What had to be assumed goes to the log.

        Args:
            own: Rows and columns of the network's patches.
            name: Of the embeddings.
            positions: ``(1, extra + L, D)``; with another number of axes they are
                returned as they are, for the strict loading to name.
            extra: Tokens before the patches.

        Raises:
            FileError: where the number of patches is not a square and the file does not
                give their rows and columns.
        """
        if positions.dim() != 3 or unusable(positions):
            return positions
        count = positions.shape[1] - extra
        grid, note = find_grid(count, name, str(self.path), recorded=self.grid)
        if note:
            MMLogger.get_current_instance().info(note)
        if grid == own or (grid[0] == grid[1] and count != math.prod(own)):
            return positions
        return interpolate(positions, grid, own, extra)


def require_weights(
    teacher: str, weights: str | None, random_weights: bool, example: str
) -> None:
    """Refuse a teacher that nobody gave weights to.

    Raises:
        ValueError: where ``weights`` is not set and ``random_weights`` is off.
    """
    if weights is None and not random_weights:
        raise UserError(
            f'weights=None leaves {teacher} without weights: set weights to a local '
            f'file or to {example}, or, for dry runs and tests only, '
            'random_weights=True'
        )


def near_names(name: str, known: Sequence[str]) -> str:
    """``'; near names: a, b'`` for a sentence; empty where none is near."""
    near = nearest(name, known)
    return '; near names: ' + ', '.join(near) if near else ''


def names_a_file(weights: str) -> bool:
    """Whether ``weights`` reads as a path, existing or not, rather than as a tag."""
    path = Path(weights)
    return path.suffix in FILE_SUFFIXES or len(path.parts) > 1 or path.is_file()


def read_weight_file(path: str | Path) -> WeightFile:
    """Read a safetensors file, a ``.pt``/``.pth`` state dict or a TorchScript archive.

    No pickled code is run. A state dict may lie under ``state_dict``, ``model`` or
    ``module``, and its keys may start with ``module.``. The SHA-256 of the file goes
    into the log.

    Raises:
        FileNotFoundError: where there is no such file.
        RuntimeError: where the file is torn, holds pickled code or no state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(
            f'weights={str(path)!r}: there is no such file; give the path of a '
            'safetensors, .pt or .pth file that is on this machine'
        )
    if get_rank() == 0:
        MMLogger.get_current_instance().info(
            'Teacher weights: %s, SHA-256 %s', path, sha256(path)
        )
    content = read_checkpoint(path)
    quick_gelu = None
    if isinstance(content, TorchScript) and {'QuickGELU', 'GELU'} & set(content.kinds):
        quick_gelu = 'QuickGELU' in content.kinds
    found = find_weights(path, content)
    start = len('module.') if all(name.startswith('module.') for name in found) else 0
    state_dict = {
        name[start:]: value.float() if value.is_floating_point() else value
        for name, value in found.items()
    }
    if all(marker in state_dict for marker in OPENAI_MARKERS):
        quick_gelu = True
        state_dict = {k: v for k, v in state_dict.items() if k not in OPENAI_MARKERS}
    grid = recorded_grid(path, content)
    return WeightFile(path, state_dict, quick_gelu, grid)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
