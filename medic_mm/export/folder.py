"""A folder that ``timm.create_model`` loads, and its upload to the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from medic_mm.checkpoints.saving import save_weights
from medic_mm.errors import UserError
from medic_mm.export.preprocessing import Preprocessing
from medic_mm.helpers import first_line
from medic_mm.models.vit.architecture import Architecture
from medic_mm.version import __version__

FILES = ('model.safetensors', 'config.json', 'README.md')

_ID = re.compile(r'[\w.-]+/[\w.-]+')


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        UserError: names what is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder} is a file: give a new folder')
    others = [p.name for p in folder.iterdir()] if folder.exists() else []
    others = sorted(set(others) - set(FILES))
    if others:
        raise UserError(
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
    """Write :data:`FILES`: weights under timm's names, timm's config, model card."""
    config = dict(
        architecture=architecture.name,
        num_classes=0,
        num_features=architecture.arguments['embed_dim'],
        global_pool=architecture.arguments['global_pool'],
        model_args=architecture.arguments,
        pretrained_cfg=preprocessing.timm_settings(),
        medic_mm_version=__version__,
    )
    save_weights(weights, folder / FILES[0], {})
    (folder / FILES[1]).write_text(json.dumps(config, indent=2) + '\n')
    (folder / FILES[2]).write_text(card, encoding='utf-8')


def check_login(repository: str) -> str:
    """Name of the user who is logged in, to upload to ``'name/model'``.

    Raises:
        UserError: for another form of the id, or where nobody is logged in or the Hub
            does not answer.
    """
    if not _ID.fullmatch(repository):
        raise UserError(f'{repository!r} is not an id of the Hub: use name/model')
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError as error:
        raise UserError(
            'uploading needs huggingface_hub: pip install huggingface_hub'
        ) from error
    if get_token() is None:
        raise UserError(
            'nobody is logged in to the Hugging Face Hub: run `hf auth login` first'
        )
    try:
        return HfApi().whoami()['name']
    # OSError: every error of the Hub's client and of the network below it
    except OSError as error:
        raise UserError(
            f'the Hugging Face Hub does not let you in ({first_line(error)})'
        ) from error


def describe_upload(files: Sequence[Path], repository: str, private: bool) -> str:
    """What will be uploaded, where to, and how large it is."""
    sizes = [path.stat().st_size for path in files]
    kind = 'private' if private else 'public'
    lines = [
        f'upload to https://huggingface.co/{repository} (made {kind} if it is new):',
        *(f'  {p.name:<20}{_size(n):>12}' for p, n in zip(files, sizes, strict=True)),
        f'  {"together":<20}{_size(sum(sizes)):>12}',
    ]
    return '\n'.join(lines)


def upload(folder: Path, files: Sequence[Path], repository: str, private: bool) -> str:
    """Make the repository if need be and upload the files; their address.

    Raises:
        UserError: where the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[path.name for path in files],
            commit_message='Add the exported backbone',
        )
    except OSError as error:
        raise UserError(
            f'the upload to {repository!r} failed ({first_line(error)})'
        ) from error
    return f'https://huggingface.co/{repository}'


def _size(number: int) -> str:
    for unit in ('B', 'kB', 'MB'):
        if number < 1000:
            return f'{number:.0f} {unit}' if unit == 'B' else f'{number:.1f} {unit}'
        number /= 1000
    return f'{number:.2f} GB'
