"""How the command-line tools end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from medic_mm.errors import UserError
from medic_mm.settings.building import naming_places


@contextlib.contextmanager
def sentences_for_users() -> Iterator[None]:
    """Show an :class:`UserError` as its sentence, without traceback; exit with 1.

    Other errors keep their traceback, whose last line is their sentence. Where the
    construction of a component raised them, its place in the config is named.
    """
    try:
        with naming_places():
            yield
    except UserError as error:
        # The first process that ends makes torchrun stop the others, before they could
        # print; what it raised is the last thing that torchrun shows.
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            raise
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(1) from None
