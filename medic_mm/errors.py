"""Errors that a user can mend: one sentence each, shown without a traceback.

A ``UserError`` names the setting or file, its value, and what would be right. The
command-line tools print it as ``error: ...`` and end with status 1; any other exception
is a fault of the program and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """A setting, an argument or an input that cannot be used as it is."""

    def __str__(self) -> str:
        """The sentence, also where a data worker sent its traceback in its place."""
        text = super().__str__()
        first = text.partition('\n')[0]
        if first.startswith('Caught ') and ' worker process ' in first:
            return text.rstrip().rpartition(f'{type(self).__name__}: ')[2]
        return text


class FileError(UserError, RuntimeError):
    """A file that is damaged, carries code, or does not fit."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist."""


class DiskError(UserError, OSError):
    """A disk that is full, cannot be written to, or is not shared by all processes."""
