"""Image files: what they are, and which a folder or list names; without OpenMMLab."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medic_mm.errors import FileError, MissingFileError
from medic_mm.helpers import listed

#: Names of image files end with one of these, in small or capital letters.
SUFFIXES = (
    *('.avif', '.bmp', '.dib', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg'),
    *('.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'),
)

#: Written by systems and programs next to one's data; as is all that begins with a dot.
_SYSTEM = frozenset(
    name.lower()
    for name in (
        '__MACOSX',
        '__pycache__',
        '@eaDir',
        '$RECYCLE.BIN',
        'System Volume Information',
        'lost+found',
        'Thumbs.db',
        'ehthumbs.db',
        'desktop.ini',
        'Icon\r',
    )
)

HIDDEN = 'hidden or system file'
NO_TARGET = 'link to nothing'
LOOP = 'link back to a folder above it'
NO_FILE = 'neither a file nor a folder'
NO_CLASS = 'outside of the class folders'

# a line of a list
_LABELLED = re.compile(r'(.*?\S)(?:[ \t]+|[ \t]*[,;][ \t]*)([+-]?\d+)')


@dataclass
class ImageFiles:
    """The images below a folder, and what was left out there.

    Attributes:
        files: Paths below the folder with ``/`` between the names, sorted.
        folders: Names of the folders directly in it, sorted; also those that hold no
            images.
        left_out: Reason to paths below the folder.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, path: str, reason: str) -> None:
        """Record a path that is not taken."""
        self.left_out.setdefault(reason, []).append(path)


def is_image_name(name: str, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(tuple(suffixes)) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or written by a system next to the data."""
    name = os.path.basename(name)
    return name.startswith('.') or name.lower() in _SYSTEM


def find_image_files(
    folder: str | Path, suffixes: Sequence[str] = SUFFIXES
) -> ImageFiles:
    """All images below a folder, as training and every tool see them.

    Links to files and folders are followed; a link to a folder that it lies in ends
    there. Hidden and system files are left out.

    Args:
        folder: Where to look, sub-folders included. Its own name may be hidden.
        suffixes: Endings of names, in small letters.

    Raises:
        MissingFileError: if the folder does not exist.
        FileError: for a folder that cannot be read.
    """
    found = ImageFiles()
    above: set[tuple[int, int]] = set()
    _walk(os.fspath(folder), '', tuple(suffixes), above, found)
    found.files.sort()
    found.folders.sort()
    for paths in found.left_out.values():
        paths.sort()
    return found


def find_labelled_files(
    folder: str | Path, suffixes: Sequence[str] = SUFFIXES
) -> tuple[list[tuple[str, str]], ImageFiles]:
    """Pairs of an image below a folder and the class folder that it lies in.

    Args:
        folder: Holds one folder a class.
        suffixes: Endings of names, in small letters.

    Returns:
        Pairs ``(path below the folder, name of the class folder)``, sorted by class
        folder, then by path; and all that was found. Images directly in the folder
        have no class and are left out.

    Raises:
        MissingFileError: if the folder does not exist.
        FileError: for a folder that cannot be read.
    """
    found = find_image_files(folder, suffixes)
    pairs = []
    for path in found.files:
        name, below, _ = path.partition('/')
        if below:
            pairs.append((path, name))
        else:
            found.leave_out(path, NO_CLASS)
    found.files = [path for path, _ in pairs]
    # by class first: 'a-b/x' stands before 'a/x' among plain strings
    return sorted(pairs, key=lambda pair: (pair[1], pair[0])), found


def count_left_out(left_out: Mapping[str, Sequence[str]]) -> str:
    """Numbers by reason, the largest first: ``'3 other suffix (.txt), 1 ...'``."""
    counts = Counter({reason: len(paths) for reason, paths in left_out.items()})
    return ', '.join(f'{count} {reason}' for reason, count in counts.most_common())


def name_left_out(
    left_out: Mapping[str, Sequence[str]], folder: str | Path, most: int = 10
) -> str:
    """One sentence on what was left out below a folder; empty if nothing was."""
    paths = [path for reason in left_out for path in left_out[reason]]
    if not paths:
        return ''
    return (
        f'{len(paths)} files or folders below {folder} are left out '
        f'({count_left_out(left_out)}): {listed(paths, most)}'
    )


def _walk(
    folder: str,
    below: str,
    suffixes: tuple[str, ...],
    above: set[tuple[int, int]],
    found: ImageFiles,
) -> bool:
    """Add what lies in ``folder``, named ``below`` from the top; False: a loop."""
    try:
        facts = os.stat(folder)
        key = facts.st_dev, facts.st_ino
        if key in above:
            found.leave_out(below, LOOP)
            return False
        with os.scandir(folder) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise MissingFileError(f'the folder {folder} does not exist') from error
    except OSError as error:
        raise FileError(
            f'the folder {folder} cannot be read ({error.strerror or error}): let '
            'this user read it, or move it out of the data'
        ) from error
    above.add(key)
    for entry in names:
        path = f'{below}/{entry.name}' if below else entry.name
        kind = _kind(entry)
        if is_hidden(entry.name):
            found.leave_out(path, HIDDEN)
        elif kind == 'folder':
            walked = _walk(entry.path, path, suffixes, above, found)
            if walked and not below:
                found.folders.append(entry.name)
        elif kind != 'file':
            found.leave_out(path, kind)
        elif is_image_name(entry.name, suffixes):
            found.files.append(path)
        else:
            suffix = os.path.splitext(entry.name)[1].lower()
            found.leave_out(path, f'other suffix ({suffix or "none"})')
    above.remove(key)
    return True


def _kind(entry: os.DirEntry) -> str:
    """``'file'``, ``'folder'``, or why it is neither."""
    try:
        if entry.is_dir():
            return 'folder'
        if entry.is_file():
            return 'file'
    except OSError:  # a link to itself
        return NO_TARGET
    return NO_TARGET if entry.is_symlink() else NO_FILE


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
