"""Upload an exported folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_ID = re.compile(r'[\w.-]+/[\w.-]+')


def check_login(repository: str) -> str:
    """Name of the user who is logged in.

    Args:
        repository: Id of the repository, ``'name/model'``.

    Raises:
        ValueError: for another form of the id.
        RuntimeError: where nobody is logged in, or the Hub does not answer.
    """
    if not _ID.fullmatch(repository):
        raise ValueError(f'{repository!r} is no id of the Hub: use name/model')
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError as error:
        raise RuntimeError(
            'uploading needs huggingface_hub: pip install huggingface_hub'
        ) from error
    if get_token() is None:
        raise RuntimeError(
            'nobody is logged in to the Hugging Face Hub: run `hf auth login` first'
        )
    try:
        return HfApi().whoami()['name']
    # OSError: every error of the Hub's client and of the network below it
    except OSError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RuntimeError(
            f'the Hugging Face Hub does not let you in ({reason})'
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
        RuntimeError: where the Hub refuses.
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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RuntimeError(f'the upload to {repository!r} failed ({reason})') from error
    return f'https://huggingface.co/{repository}'


def _size(number: int) -> str:
    for unit in ('B', 'kB', 'MB'):
        if number < 1000:
            return f'{number:.0f} {unit}' if unit == 'B' else f'{number:.1f} {unit}'
        number /= 1000
    return f'{number:.2f} GB'
