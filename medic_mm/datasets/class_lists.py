"""What data sets and checkpoints say of their classes, compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DATASETS as ROOT

from medic_mm.datasets.classes import by_position, checked_names, number_folders
from medic_mm.errors import UserError
from medic_mm.helpers import listed, type_name
from medic_mm.registry import DATASETS

#: So many names are written out in an advice; more are described.
_WRITTEN_OUT = 20


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

    @classmethod
    def of_checkpoint(cls, meta: Mapping[str, Any]) -> ClassList:
        """The classes in the ``dataset_meta`` of a checkpoint."""
        names = tuple(str(name) for name in meta['classes'])
        keys = meta.get('class_folders')
        # the words of a type of data sets, not names that someone gave
        kind = 'a known data set' if names in _known_words() else ''
        return cls(names, keys and tuple(keys), kind)

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


def check_settings(settings: Any) -> None:
    """Refuse settings of mmpretrain's folder data sets that number by position.

    ``CustomDataset`` and its subclasses give the sorted folders the numbers 0, 1, ...,
    whatever names are given, and stop at an assertion where a folder is missing.

    Args:
        settings: Of a data set, with those inside of wrappers.

    Raises:
        UserError: where that number is not the one of the name.
    """
    from mmpretrain.datasets import CustomDataset

    if isinstance(settings, (list, tuple)):
        for part in settings:
            check_settings(part)
        return
    if not isinstance(settings, Mapping) or 'type' not in settings:
        return
    for inner in ('dataset', 'datasets'):
        check_settings(settings.get(inner))
    kind = settings['type']
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    positional = isinstance(kind, type) and issubclass(kind, CustomDataset)
    if not positional or hasattr(kind, 'numbers_by_name'):
        return
    draft = copy.deepcopy(dict(settings))
    draft.update(pipeline=[], lazy_init=True)
    dataset = DATASETS.build(draft)
    folder = Path(dataset.img_prefix)
    if dataset.ann_file or not dataset.with_label or dataset.CLASSES is None:
        return
    if not folder.is_dir():
        return
    folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    names = checked_names(dataset.CLASSES)
    numbers = number_folders(folders, names, folder)
    if list(numbers.values()) != list(range(len(names))):
        raise UserError(by_position(type_name(settings), folder))


def compare_classes(datasets: Mapping[str, Any], of: str = '') -> int | None:
    """Compare the classes of data sets, and say which have no images.

    Names are compared where both sides have them. Data sets that only give numbers, or
    have words of their own (mmpretrain's ImageNet against folders), are compared by
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


def require_known(found: ClassList, trained: ClassList, name: str) -> None:
    """Refuse data whose classes are not those that a checkpoint was trained on.

    Raises:
        UserError: names what differs, and what to set.
    """
    if trained.fits(found):
        return
    left, right = max(
        trained.pairs(found), key=lambda pair: len(set(pair[0]) & set(pair[1]))
    )
    absent, unknown = sorted(set(left) - set(right)), sorted(set(right) - set(left))
    words = f'all {len(left)}' if len(left) > _WRITTEN_OUT else str(list(left))
    raise UserError(
        f'the checkpoint was trained on other classes than the {name} data set has '
        f'(not in the data: {listed(absent)}; not in the checkpoint: '
        f"{listed(unknown)}): give the data set type='medic_mm.ImageFolder' and "
        f'metainfo=dict(classes={words}), and only folders of these classes'
    )


def _known_words() -> set[tuple[str, ...]]:
    """The classes of all types of data sets that have words of their own."""
    registries, found = [ROOT], set()
    while registries:
        registry = registries.pop()
        registries += registry.children.values()
        for kind in registry.module_dict.values():
            names = (getattr(kind, 'METAINFO', None) or {}).get('classes')
            if names:
                found.add(tuple(str(name) for name in names))
    return found


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
    """All labels of a data set; none where it does not say, or folders give them."""
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
