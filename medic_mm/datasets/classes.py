"""Class names decide the numbers of classes, not the positions of folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from medic_mm.errors import UserError
from medic_mm.helpers import listed

#: So many names are written out in an advice; more are described.
_WRITTEN_OUT = 20


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


@dataclass(frozen=True)
class ClassList:
    """What a data set, or a checkpoint, says of its classes.

    Attributes:
        names: The name of each class, in the order of their numbers.
        keys: The same by the names of folders, where folders are the classes.
        kind: The type of the data set; empty for the names in a checkpoint.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...] | None = None
    kind: str = ''

    def pairs(self, other: ClassList) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The lists of names to compare, of which one pair has to be equal."""
        if self.keys is not None and other.keys is not None:
            return [(self.keys, other.keys)]
        ours = [names for names in (self.names, self.keys) if names is not None]
        theirs = [names for names in (other.names, other.keys) if names is not None]
        return [(one, two) for one in ours for two in theirs]

    def fits(self, other: ClassList) -> bool:
        """Whether the classes are the same, in the same order.

        Types of data sets that give numbers, from a list or by heart, may have words of
        their own for them: where none of these is the other's, the count decides.
        """
        pairs = self.pairs(other)
        if any(one == two for one, two in pairs):
            return True
        numbers_alone = [self.keys is None, other.keys is None]
        by_count = any(numbers_alone) and self.kind and other.kind
        if self.kind == other.kind and all(numbers_alone):
            by_count = False
        return bool(by_count) and all(
            len(one) == len(two) and not set(one) & set(two) for one, two in pairs
        )


def class_list(dataset: Any) -> ClassList | None:
    """What a data set (without wrappers) says of its classes; None for nothing.

    Raises:
        UserError: where it numbers folders otherwise than its own names do.
    """
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if names is None:
        return None
    words = checked_names(names)
    kind = type(dataset).__name__
    folders = _folders(dataset)
    if not folders:
        return ClassList(words, None, kind)
    where = getattr(dataset, 'img_prefix', '')
    if folders != number_folders(list(folders), words, where):
        raise UserError(by_position(kind, where))
    keys = list(words)
    if not set(words) & set(folders):  # words to show
        for folder, number in folders.items():
            keys[number] = folder
    return ClassList(words, tuple(keys), kind)


def compare_classes(datasets: Mapping[str, Any], of: str = '') -> int | None:
    """Compare the classes of data sets, and say which have no images.

    Names are compared where both sides have them. Data sets that only give numbers, or
    have words of their own (the host's ImageNet against folders), are compared by
    count.

    Args:
        datasets: Built data sets by their names (``'train'``, ``'validation'``,
            ``'test'``); wrappers are looked into.
        of: What they are for, for messages: ``' of k-NN'``.

    Returns:
        The number of classes; None where no data set says it.

    Raises:
        UserError: where they differ; it names the folders or classes that do. Also for
            labels beyond the number of classes.
    """
    found: list[tuple[str, ClassList]] = []
    parts = [(name, part) for name, x in datasets.items() for part in leaves(x)]
    for name, part in parts:
        ours = class_list(part)
        if ours is None:
            continue
        if found:
            require_same(found[0], (name, ours), of)
        found.append((name, ours))
    if not found:
        return None
    count = len(found[0][1].names)
    for name, part in parts:
        require_labels_below(part, count, f'the {name} data set{of}')
    return count


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers (concatenated, repeated, parts of one)."""
    parts = getattr(dataset, 'datasets', None)
    if parts is None and hasattr(dataset, 'dataset'):
        parts = [dataset.dataset]
    if parts is None:
        yield dataset
    for part in parts or ():
        yield from leaves(part)


def require_labels_below(dataset: Any, count: int, name: str) -> None:
    """Refuse labels that are not 0 to ``count - 1``; log classes without images.

    Raises:
        UserError: names the data set, the label and the count.
    """
    labels = _labels(dataset)
    if not labels:
        return
    wrong = sorted(label for label in labels if not 0 <= label < count)
    if wrong:
        raise UserError(
            f'{name} holds class number {wrong[-1]}, but there are {count} classes, '
            f'numbered from 0 to {count - 1}: mend its list of labels, or name all '
            'classes by metainfo=dict(classes=[...])'
        )
    empty = [number for number in range(count) if number not in labels]
    if empty:
        names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        words = [names[number] if names else number for number in empty]
        print_log(
            f'{name} has no images of {len(empty)} of {count} classes: {listed(words)}',
            'current',
        )


def require_same(
    one: tuple[str, ClassList], two: tuple[str, ClassList], of: str = ''
) -> None:
    """Refuse two lists of classes, each with the name of its data set, that differ.

    Raises:
        UserError: names what differs, and what to set.
    """
    (first, ours), (second, theirs) = one, two
    if ours.fits(theirs):
        return
    # of several ways to compare, the one in which most is alike
    left, right = max(
        ours.pairs(theirs), key=lambda pair: len(set(pair[0]) & set(pair[1]))
    )
    both = 'data sets' if first != second else f'parts of the {first} data set'
    start = f'the {both}{of} have different classes: '
    if len(left) != len(right):
        start += f'{len(left)} in {first}, {len(right)} in {second}; '
    differing = [
        f'{listed(only)} only in {name}'
        for name, only in (
            (first, sorted(set(left) - set(right))),
            (second, sorted(set(right) - set(left))),
        )
        if only
    ]
    if not differing:
        word = next(x for x, y in zip(left, right, strict=True) if x != y)
        differing = [
            f'{word} is number {left.index(word)} in {first} and '
            f'{right.index(word)} in {second}'
        ]
    raise UserError(f'{start}{", ".join(differing)}: {_advice(ours, theirs)}')


def _advice(ours: ClassList, theirs: ClassList) -> str:
    if ours.keys is None or theirs.keys is None:
        return (
            'give both the names of all classes, also of those without images, in the '
            'order of their numbers by metainfo=dict(classes=[...])'
        )
    union = sorted({*ours.keys, *theirs.keys})
    if len(union) > _WRITTEN_OUT:
        names = f'[...]) with the names of all {len(union)} class folders of both'
    else:
        names = f'{union})'
    ours_alone = {ours.kind, theirs.kind} == {'ImageFolder'}
    kind = '' if ours_alone else "type='medic_mm.ImageFolder', with_label=True and "
    return f'give both {kind}metainfo=dict(classes={names}'


def _labels(dataset: Any) -> set[int]:
    """All labels of a data set; none where it does not tell, or folders give them."""
    if _folders(dataset) or not hasattr(dataset, 'get_data_info'):
        return set()
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    labels = (info.get('gt_label') for info in infos if isinstance(info, dict))
    return {int(x) for x in labels if isinstance(x, int) or getattr(x, 'ndim', 1) == 0}


def _folders(dataset: Any) -> dict[str, int]:
    """The number of each folder of a data set whose folders are its classes."""
    if getattr(dataset, 'ann_file', ''):
        return {}
    return dict(getattr(dataset, 'folder_to_idx', None) or {})


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
