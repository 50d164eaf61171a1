"""A whole model of a config with all the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from medic_mm.checkpoints import read_state_dict
from medic_mm.errors import UserError

_SHOWN = 3


def load_whole(model: nn.Module, checkpoint: str) -> None:
    """Give a model the weights of a checkpoint, all of them and no others.

    Args:
        model: The model; a frozen teacher outside the module tree is not touched.
        checkpoint: The file.

    Raises:
        UserError: for a file that cannot be read, and where weights are missing, left
            over or of another shape; it names some.
    """
    try:
        found = model.load_state_dict(read_state_dict(checkpoint), strict=False)
    except (OSError, RuntimeError) as error:
        raise UserError(' '.join(str(error).split())) from error
    if found.missing_keys or found.unexpected_keys:
        raise UserError(
            f'checkpoint {checkpoint} does not fit {type(model).__name__} of the '
            f'config: missing {_some(found.missing_keys)}; unexpected '
            f'{_some(found.unexpected_keys)}'
        )


def _some(names: Collection[str]) -> str:
    shown = ', '.join(list(names)[:_SHOWN]) or 'nothing'
    more = len(names) - _SHOWN
    return f'{shown} and {more} more' if more > 0 else shown
