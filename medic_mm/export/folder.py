"""A folder for the Hugging Face Hub that ``timm.create_model`` loads."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from medic_mm.checkpoints.saving import save_weights
from medic_mm.export.architecture import Architecture
from medic_mm.export.preprocessing import Preprocessing
from medic_mm.export.vit import timm_settings
from medic_mm.version import __version__

FILES = ('model.safetensors', 'config.json', 'README.md')


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        ValueError: names what is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder} is a file: give a new folder')
    others = [p.name for p in folder.iterdir()] if folder.exists() else []
    others = sorted(set(others) - set(FILES))
    if others:
        raise ValueError(
            f'folder {folder} holds other files ({", ".join(others[:4])}): give a new '
            'folder, since all that is in it would be uploaded'
        )


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder for drafts, whose files are moved to ``folder`` if all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.export-') as scratch:
        yield Path(scratch)
        folder.mkdir(exist_ok=True)
        for name in FILES:
            os.replace(Path(scratch, name), folder / name)


def write_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    architecture: Architecture,
    preprocessing: Preprocessing,
    card: str,
) -> None:
    """Write the files of :data:`FILES`.

    Args:
        folder: Where to; it exists.
        weights: Under timm's names.
        architecture: Of the network.
        preprocessing: Of its images; kept in ``config.json``, where timm looks for it.
        card: Text of ``README.md``.
    """
    config = dict(
        architecture=architecture.name,
        num_classes=0,
        num_features=architecture.arguments['embed_dim'],
        global_pool=architecture.arguments['global_pool'],
        model_args=architecture.arguments,
        pretrained_cfg=timm_settings(architecture, preprocessing),
        medic_mm_version=__version__,
    )
    save_weights(weights, folder / FILES[0], {})
    (folder / FILES[1]).write_text(json.dumps(config, indent=2) + '\n')
    (folder / FILES[2]).write_text(card, encoding='utf-8')
