"""Class names decide the numbers of classes, not the positions of folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log

from medic_mm.errors import UserError
from medic_mm.helpers import listed


def number_folders(
    folders: Sequence[str], names: Sequence[str] | None, where: str | Path = ''
) -> dict[str, int]:
    """The number of each class folder, from 0.

    Args:
        folders: Names of the class folders.
        names: What the setting ``metainfo=dict(classes=[...])`` gives. Where it names
            every folder, a class has its place there, and one without a folder has no
            images. Where it names none, these are words to show, one for each folder in
            the folders' order. None: the folders are numbered in their order.
        where: The folder that holds them, for messages.

    Raises:
        UserError: for names given twice or by no list, names of some folders and not
            of others, and words to show of another number.
    """
    folders = sorted(folders)
    if names is None:
        return {folder: number for number, folder in enumerate(folders)}
    words = checked_names(names)
    places = {word: number for number, word in enumerate(words)}
    doubled = [folder for folder in folders if words.count(folder) > 1]
    if doubled:
        raise UserError(
            f'metainfo=dict(classes=[...]) names {listed(doubled)} more than once: '
            'name each class folder once'
        )
    unknown = [folder for folder in folders if folder not in places]
    if not unknown:
        return {folder: places[folder] for folder in folders}
    advice = (
        f'give metainfo=dict(classes=[...]) the names of all {len(folders)} folders, '
        'or leave it out'
    )
    if len(unknown) < len(folders):
        raise UserError(
            f'{where} holds the class folders {listed(unknown)}, which metainfo='
            f'dict(classes=[...]) does not name; it names '
            f'{listed(folder for folder in folders if folder in places)}: {advice}'
        )
    if len(words) != len(folders):
        raise UserError(
            f'{where} holds {len(folders)} class folders ({listed(folders)}), but '
            f'metainfo=dict(classes=[...]) has {len(words)} other names '
            f'({listed(words)}): {advice}'
        )
    for number, folder in enumerate(folders):
        alike = [word for word in words if _plain(word) == _plain(folder)]
        if alike and words[number] not in alike:
            raise UserError(
                f'metainfo=dict(classes=[...]) would name the folder {folder} of '
                f'{where} {words[number]!r}, since {alike[0]!r} is written otherwise '
                f'than the folder and stands elsewhere: {advice}'
            )
    return {folder: number for number, folder in enumerate(folders)}


def log_numbers(
    folder: str | Path,
    numbers: Mapping[str, int],
    names: Sequence[str] | None,
    filled: Iterable[int],
) -> None:
    """Log what :func:`number_folders` made of the names, and classes without images."""
    words = tuple(numbers) if names is None else checked_names(names)
    if not set(words) & set(numbers):
        shown = (f'{name} is {words[number]}' for name, number in numbers.items())
        print_log(
            f'No name in metainfo=dict(classes=[...]) is a folder of {folder}: the '
            f'names are shown for the sorted folders ({listed(shown)}).',
            'current',
        )
    filled = set(filled)
    empty = [word for number, word in enumerate(words) if number not in filled]
    if empty:
        print_log(
            f'{folder} holds no images of {len(empty)} of {len(words)} classes: '
            f'{listed(empty)}',
            'current',
        )


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple.

    Raises:
        UserError: for the name of a file that was not read, and for no names.
    """
    if isinstance(names, str) and (Path(names).suffix or '/' in names):
        raise UserError(
            f'metainfo=dict(classes={names!r}) must be a list of names, or a text file '
            'that exists and has one name a line'
        )
    if not names:
        raise UserError('metainfo=dict(classes=[]) names no class')
    return tuple(str(name) for name in names)


def _plain(word: str) -> str:
    return ''.join(sign for sign in word.casefold() if sign.isalnum())


def by_position(kind: str, folder: str | Path) -> str:
    """The sentence on a data set whose numbers are not those of its names."""
    return (
        f'{kind} numbers the class folders of {folder} by their positions, which is '
        "not what its classes say: use type='medic_mm.ImageFolder', with_label=True, "
        'which numbers them by name'
    )
