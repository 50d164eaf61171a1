"""Weights from a hub: asked once, and a sentence where it cannot be reached."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from huggingface_hub import constants, try_to_load_from_cache
from mmengine.logging import MMLogger
from torch import nn

from medic_mm.errors import FileError

T = TypeVar('T')

#: Seconds that a hub may take to answer at all.
PATIENCE = 5.0
#: Seconds until the hub itself is asked whether it is there.
QUICK = 1.0
INSTEAD = (
    'fetch it on a machine with internet access and give the local file with '
    'weights=PATH'
)
_UNREACHABLE = (socket.gaierror, TimeoutError, ConnectionError)


def fetch(
    what: str,
    source: str,
    network: nn.Module,
    download: Callable[[], T],
    kept: Callable[[], T] | None = None,
) -> T:
    """Run ``download`` after saying in the log what it fetches from where.

    Args:
        what: What is fetched, for messages.
        source: Address of it.
        network: The network that it is for; its size goes into messages.
        download: Fetches it; is left alone where the hub does not answer.
        kept: Gives what an earlier download has left on this machine, or None.

    Raises:
        FileError: where it fails, with the remedy.
    """
    megabytes = sum(value.numel() for value in network.parameters()) * 4 / 1e6
    size = f'the image tower alone is {megabytes:.0f} MB in fp32'
    found = kept() if kept is not None else None
    if found is not None:
        return found
    MMLogger.get_current_instance().info(
        'Fetching %s from %s, unless it is in the cache already (%s). Without internet '
        'access, %s.',
        what,
        source,
        size,
        INSTEAD,
    )
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome['found'] = download()
        except Exception as error:
            outcome['error'] = error

    # left alone where the hub is gone: hubs try again for most of a minute
    fetching = threading.Thread(target=work, daemon=True)
    fetching.start()
    # what is on this machine is there at once, and a hub may refuse at once
    fetching.join(QUICK)
    if fetching.is_alive():
        gone = unreachable(source, PATIENCE - QUICK)
        if gone is None:
            fetching.join()
        elif fetching.is_alive():
            outcome['error'] = ConnectionError(gone)
    if (error := outcome.get('error')) is None:
        return outcome['found']
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise FileError(
        f'{what} could not be fetched from {source} ({reason}; {size}): {INSTEAD}'
    ) from error


def unreachable(source: str, patience: float = PATIENCE) -> str | None:
    """Why the server of an address does not answer within seconds; None where it does.

    Any answer counts, an error too. Proxies of the environment are used.
    """
    if constants.HF_HUB_OFFLINE and source.startswith(constants.ENDPOINT):
        return 'HF_HUB_OFFLINE is set'
    parts = urllib.parse.urlsplit(source)
    address = f'{parts.scheme}://{parts.netloc}'
    reasons: list[str | None] = []
    asking = threading.Thread(
        target=lambda: reasons.append(_ask(address, patience)), daemon=True
    )
    asking.start()
    # a look-up of a name cannot be given a time
    asking.join(patience)
    return reasons[0] if reasons else f'no answer within {patience:.0f} s'


def _ask(address: str, patience: float) -> str | None:
    request = urllib.request.Request(address, method='HEAD')
    try:
        urllib.request.urlopen(request, timeout=patience).close()
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        # OSError: no route and the like; an unknown certificate is an answer
        gone = isinstance(error.reason, _UNREACHABLE) or type(error.reason) is OSError
        return str(error.reason) if gone else None
    except _UNREACHABLE as error:
        return str(error) or type(error).__name__
    except (OSError, ValueError, http.client.HTTPException):
        pass
    return None


def hub_address(repository: str) -> str:
    """Address of a repository of Hugging Face, or of the mirror that is set."""
    return f'{constants.ENDPOINT}/{repository}'


def kept_file(repository: str, names: Sequence[str]) -> str | None:
    """The first of a Hugging Face repository's files that is on this machine."""
    repository, _, revision = repository.partition('@')
    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str) and os.path.isfile(found):
            return found
    return None
