"""Images and masks of segmentation: which files are taken, and what masks hold."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image

from medic_mm.datasets.class_lists import leaves
from medic_mm.datasets.decoding import errors_of_file, upright_size
from medic_mm.datasets.image_files import find_image_files, name_left_out
from medic_mm.errors import FileError, MissingFileError, UserError
from medic_mm.helpers import listed
from medic_mm.registry import DATASETS

#: So many masks of a data set are looked at before the first step.
MASKS_LOOKED_AT = 64


def check_image_suffixes(
    settings: Mapping[str, Any] | None, scope: str | None = None
) -> None:
    """Refuse folders of which mmsegmentation would take no image, or leave some out.

    It takes the files that end with ``img_suffix``, in the same letters.

    Args:
        settings: Config of a data set, or of one around others. Data sets without
            ``data_prefix=dict(img_path=..., seg_map_path=...)``, and those with a list
            of their images, are not looked at.
        scope: The config's ``default_scope``, in which types are found.

    Raises:
        MissingFileError: for a folder that does not exist or holds no such image.
        UserError: for images whose suffix is ``img_suffix`` in other letters.
    """
    for inner in _inner_settings(settings or {}):
        prefix = inner.get('data_prefix')
        if not isinstance(prefix, Mapping) or 'seg_map_path' not in prefix:
            continue
        root, below = str(inner.get('data_root') or ''), str(prefix.get('img_path', ''))
        folder = Path(root, below)
        if inner.get('ann_file') or '://' in str(root) + below:
            continue
        if not folder.is_dir():
            raise MissingFileError(
                f'the folder of images {folder} does not exist: set data_root and '
                'data_prefix.img_path, which are joined'
            )
        suffix = inner.get('img_suffix') or _default_suffix(inner, scope)
        if suffix is not None:
            _check_folder(folder, suffix)


def check_masks(dataset: Any, name: str, head: Any) -> None:
    """Look at the masks of a data set before the first step.

    All must exist; some, drawn from a fixed seed, are opened: one channel, the size of
    their image, values that are classes of the head or ignored.

    Args:
        dataset: Of mmsegmentation, or one around others; others are not looked at.
        name: What it is for, in messages.
        head: The decode head, with ``num_classes`` and ``ignore_index``.

    Raises:
        FileError: for a mask that does not fit; it names the file.
        MissingFileError: for an image without a mask.
    """
    for leaf in leaves(dataset):
        if not hasattr(leaf, 'get_data_info') or not len(leaf):
            continue
        if 'seg_map_path' not in leaf.get_data_info(0):
            continue
        infos = [leaf.get_data_info(i) for i in range(len(leaf))]
        _require_existing([info['seg_map_path'] for info in infos], name)
        drawn = np.random.default_rng(0).permutation(len(infos))[:MASKS_LOOKED_AT]
        found: set[int] = set()
        raw: set[int] = set()
        for index in sorted(drawn):
            values = _read_mask(infos[index])
            raw |= set(values.tolist())
            found |= _classes_of(values, infos[index], head)
        _require_classes(found, raw, infos[min(drawn)], name, head)
        if len(drawn) == len(infos):
            _say_absent(found, leaf, name, head)


def count_classes(folders: Iterable[str | Path], ignored: int = 255) -> int:
    """One more than the highest class in the masks below folders.

    Raises:
        FileError: for a mask that cannot be read or has several channels.
    """
    highest = -1
    for folder in folders:
        for name in find_image_files(folder).files:
            values = _open_mask(Path(folder, name))
            highest = max([highest, *np.unique(values[values != ignored]).tolist()])
    return highest + 1


def _check_folder(folder: Path, suffix: str) -> None:
    found = find_image_files(folder)
    taken = [path for path in found.files if path.endswith(suffix)]
    left = [path for path in found.files if not path.endswith(suffix)]
    other = [path for path in left if path.lower().endswith(suffix.lower())]
    if other:
        first = other[0]
        remedy = f'rename them to end with {suffix}'
        if not taken:
            remedy += f', or set img_suffix={first[-len(suffix) :]!r}'
        raise UserError(
            f'{len(other)} images of {folder} would not be taken, such as {first}: '
            f'img_suffix={suffix!r} is in other letters; {remedy}'
        )
    if not taken:
        raise MissingFileError(
            f'the folder {folder} holds no image that ends with img_suffix='
            f'{suffix!r}, but {listed(left, 3)}: set img_suffix to their ending'
        )
    if left:
        said = name_left_out({f'other than img_suffix={suffix!r}': left}, folder)
        MMLogger.get_current_instance().warning(said)


def _require_existing(paths: Sequence[str], name: str) -> None:
    folders: dict[str, set[str]] = {}
    missing = []
    for path in map(str, paths):
        folder, file = os.path.split(path)
        if '://' in path:
            continue
        if folder not in folders:
            is_there = os.path.isdir(folder)
            folders[folder] = set(os.listdir(folder)) if is_there else set()
        if file not in folders[folder]:
            missing.append(path)
    if missing:
        raise MissingFileError(
            f'{len(missing)} of {len(paths)} {name} images have no mask, the first is '
            f'{missing[0]}: seg_map_path, seg_map_suffix and the name of the image '
            'make its name'
        )


def _read_mask(info: Mapping[str, Any]) -> np.ndarray:
    """The different values of a mask, as mmsegmentation reads it."""
    path = info['seg_map_path']
    values = _open_mask(path)
    size = values.shape[::-1]
    with errors_of_file(info['img_path']):
        expected = upright_size(info['img_path'])
    if size != expected:
        raise FileError(
            f'the mask {path} has {size[0]} x {size[1]} pixels but its image '
            f'{info["img_path"]} {expected[0]} x {expected[1]}'
        )
    found = np.unique(values)
    if found[-1] > 255 or found[0] < 0:
        worst = found[-1] if found[0] >= 0 else found[0]
        raise FileError(f'the mask {path} holds the value {worst}: values are 0 to 255')
    return found.astype(np.uint8)


def _open_mask(path: str | Path) -> np.ndarray:
    with errors_of_file(path, 'mask'), Image.open(path) as image:
        values = np.array(image)
    if values.ndim != 2:
        raise FileError(
            f'the mask {path} has {values.shape[2]} channels: a mask has one, whose '
            'values are the numbers of classes'
        )
    return values


def _classes_of(values: np.ndarray, info: Mapping[str, Any], head: Any) -> set[int]:
    """Classes in a mask, without the ignored pixels."""
    labels = values.copy()
    if info.get('reduce_zero_label'):
        labels = np.where((values == 0) | (values == 255), 255, values - 1)
    if info.get('label_map'):
        labels = np.array([info['label_map'].get(int(x), int(x)) for x in labels])
    found = {int(label) for label in labels} - {head.ignore_index}
    wrong = sorted(label for label in found if not 0 <= label < head.num_classes)
    if wrong:
        raise FileError(wrong_class(info['seg_map_path'], wrong[0], head))
    return found


def wrong_class(path: Any, label: int, head: Any) -> str:
    """Sentence on a mask with a class that the head lacks."""
    return (
        f'the mask {path} holds class {label} but model.decode_head has num_classes='
        f'{head.num_classes}, so 0 to {head.num_classes - 1} and {head.ignore_index} '
        'for ignored pixels: set num_classes, or reduce_zero_label=True for masks '
        'whose classes begin at 1'
    )


def _require_classes(
    found: set[int], raw: set[int], info: Mapping[str, Any], name: str, head: Any
) -> None:
    path = info['seg_map_path']
    if raw == {0, 255} and len(found) < 2 <= head.num_classes:
        raise FileError(
            f'the mask {path}, as all {name} masks looked at, holds 0 and 255 alone, '
            f'and {head.ignore_index} means ignored, so one class would be all there '
            'is: write the number of the class in place of 255'
        )
    if not found:
        raise FileError(
            f'the mask {path}, as all {name} masks looked at, holds ignored pixels '
            'alone'
        )


def _say_absent(found: set[int], dataset: Any, name: str, head: Any) -> None:
    absent = sorted(set(range(head.num_classes)) - found)
    names = dataset.metainfo.get('classes') or ()
    if absent:
        words = [names[i] if i < len(names) else str(i) for i in absent]
        MMLogger.get_current_instance().warning(
            f'no {name} mask holds the classes {listed(words, 10)}'
        )


def _inner_settings(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    parts = settings.get('datasets') or [settings.get('dataset')]
    inner = [part for part in parts if isinstance(part, Mapping)]
    if not inner:
        yield settings
    for part in inner:
        yield from _inner_settings(part)


def _default_suffix(settings: Mapping[str, Any], scope: str | None) -> str | None:
    """``img_suffix`` of the data set's class; None where it has none."""
    kind = settings.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    found = inspect.signature(kind).parameters if kind is not None else {}
    return found['img_suffix'].default if 'img_suffix' in found else None
