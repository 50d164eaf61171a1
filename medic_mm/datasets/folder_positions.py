"""The host's folder data sets, which number classes by position."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.datasets import CustomDataset

from medic_mm.datasets.classes import by_position, checked_names, number_folders
from medic_mm.errors import UserError
from medic_mm.helpers import type_name
from medic_mm.registry import DATASETS


def check_settings(settings: Any) -> None:
    """Refuse settings of the host's folder data sets that number classes by position.

    The host's ``CustomDataset`` and what is made of it give the sorted folders the
    numbers 0, 1, ..., whatever names are given, and stop at an assertion where a folder
    is missing.

    Args:
        settings: Of a data set, with those inside of wrappers.

    Raises:
        UserError: where that number is not the one of the name.
    """
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
