"""Weights that a hub holds: whether they are here, and whether the hub answers."""

from __future__ import annotations

import functools
import os
import urllib.error
import urllib.request
from pathlib import Path

#: Seconds that a hub has to answer.
PATIENCE = 5.0
_HUGGING_FACE = 'https://huggingface.co'


def is_here(source: str) -> bool:
    """Whether weights of a hub lie in this machine's cache.

    Args:
        source: ``'huggingface.co/OWNER/NAME'`` or the address of a file.
    """
    if '://' in source:
        name = source.rpartition('/')[2]
        cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
        torch_home = Path(os.environ.get('TORCH_HOME', cache / 'torch'))
        folders = (torch_home / 'hub' / 'checkpoints', Path.home() / '.cache' / 'clip')
        return any((folder / name).is_file() for folder in folders)
    from huggingface_hub.constants import HF_HUB_CACHE

    repo = source.removeprefix('huggingface.co/').strip('/').replace('/', '--')
    snapshots = Path(HF_HUB_CACHE, f'models--{repo}', 'snapshots')
    return any(
        file.stat().st_size > 1 << 20
        for file in snapshots.glob('*/*')
        if file.is_file() and file.suffix in ('.safetensors', '.bin', '.pt', '.pth')
    )


@functools.cache
def unreachable(source: str) -> str | None:
    """Why the hub of a source does not answer within 5 seconds; None where it does."""
    is_address = '://' in source
    hugging_face = os.environ.get('HF_ENDPOINT', _HUGGING_FACE)
    host = '/'.join((source if is_address else hugging_face).split('/')[:3])
    if not is_address and os.environ.get('HF_HUB_OFFLINE', '') in ('1', 'True'):
        return 'HF_HUB_OFFLINE is set'
    request = urllib.request.Request(host, method='HEAD')
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError:
        return None  # it answers, though not to this
    except (OSError, ValueError) as error:
        return str(getattr(error, 'reason', error))
