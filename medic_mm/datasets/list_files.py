"""Lists of images: one ``path``, or ``path label``, a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from medic_mm.datasets.image_files import SUFFIXES
from medic_mm.errors import FileError

_LABELLED = re.compile(r'(.*?\S)(?:[ \t]+|[ \t]*[,;][ \t]*)([+-]?\d+)')


def parse_list(
    content: bytes,
    file: str,
    with_label: bool,
    classes: int | None = None,
    suffixes: Sequence[str] = SUFFIXES,
) -> list[tuple[str, int | None]]:
    """Paths and labels of a list; blank lines, tabs and a byte-order mark are fine.

    Args:
        content: The file, text in UTF-8.
        file: Its name, for messages.
        with_label: Whether a line is ``path label`` or ``path``. Either may hold
            spaces within the path.
        classes: Number of classes, where it is known.
        suffixes: Endings of names of images, which tell a label from a name.

    Returns:
        ``(path, label)``; the label is None without labels.

    Raises:
        FileError: for a line of another form; it names file and line.
    """
    found: list[tuple[str, int | None]] = []
    for number, line in _lines(content, file):
        where = f'line {number} of {file} ({_shown(line)})'
        match = _LABELLED.fullmatch(line)
        if with_label:
            found.append(_with_label(line, match, where, classes))
            continue
        if match is not None and match[1].lower().endswith(tuple(suffixes)):
            raise FileError(
                f'{where} has a label, but with_label=False: set with_label=True, or '
                'leave the labels out of the list'
            )
        found.append((line, None))
    if not found:
        raise FileError(f'the list {file} names no images')
    return found


def _with_label(
    line: str, match: re.Match | None, where: str, classes: int | None
) -> tuple[str, int]:
    if match is None:
        raise FileError(
            f'{where} is not a path and a whole number with a space between them: add '
            'the label, or set with_label=False for a list without labels'
        )
    if not line[len(match[1]) :].removesuffix(match[2]).isspace():
        raise FileError(
            f'{where} has a comma or semicolon before the label: put a space or a tab '
            'there'
        )
    label = int(match[2])
    if label < 0 or (classes is not None and label >= classes):
        last = '' if classes is None else f' to {classes - 1}'
        raise FileError(f'{where} has the label {label}: labels are 0{last}')
    return match[1], label


def _lines(content: bytes, file: str) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank."""
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise FileError(
            f'the list {file} is not text in UTF-8 ({error.reason} at byte '
            f'{error.start}): save it as UTF-8'
        ) from error
    # not splitlines(), which ends a line at characters that a name may hold
    for number, line in enumerate(re.split(r'\r\n|\n|\r', text), start=1):
        if line.strip():
            yield number, line.strip()


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else f'{line[:57]}...')
