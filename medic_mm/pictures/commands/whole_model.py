"""A whole model of a config with all the weights of a checkpoint."""

from __future__ import annotations

from torch import nn

from medic_mm.checkpoints import read_state_dict
from medic_mm.checkpoints.strict import load_strictly


def load_whole(model: nn.Module, checkpoint: str) -> None:
    """Give a model the weights of a checkpoint, all of them and no others.

    Args:
        model: The model; a frozen teacher outside the module tree is not touched.
        checkpoint: The file.

    Raises:
        UserError: for a file that cannot be read, and where weights are missing, left
            over, of another shape or not numbers; it names some.
    """
    load_strictly(model, read_state_dict(checkpoint), f'checkpoint {checkpoint}')
