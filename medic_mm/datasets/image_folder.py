"""Images in a folder: one's own, without labels, or sorted into class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmengine import fileio
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset

from medic_mm.checks import require_number, require_numbers
from medic_mm.datasets.classes import log_numbers, number_folders
from medic_mm.datasets.decoding import errors_of_file
from medic_mm.datasets.image_files import (
    SUFFIXES,
    find_image_files,
    find_labelled_files,
    name_left_out,
    parse_list,
)
from medic_mm.errors import MissingFileError, UserError
from medic_mm.registry import DATASETS
from medic_mm.sampling import in_turns, ranks_in_class


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, by default without labels.

    Args:
        data_root: Folder of the images; sub-folders are searched too.
        with_label: Take the sub-folders as classes. Where ``metainfo=dict(
            classes=[...])`` names every sub-folder, a class has its place there, and
            may lack images; where it names none, these are words to show, one for each
            sub-folder in sorted order. Without it the sorted sub-folders are numbered.
        per_class: Keep only so many images of each class, drawn by their names from
            ``draw_seed``. Needs labels.
        indices: Numbers of the images to keep; or how many, of each class alike, drawn
            as for ``per_class``.
        draw_seed: Of the draw. None: the first ones in the order of their names, for
            comparison with results that were measured so.
        extensions: Endings of names of image files.
        **kwargs: mmpretrain's arguments (``data_prefix``, ``ann_file``, ``pipeline``,
            ...).

    Attributes:
        left_out: Reason to the files and folders below ``data_prefix`` that are not
            taken, see :mod:`medic_mm.datasets.image_files`.

    Raises:
        FileNotFoundError: for a folder that is not there or holds no images.
        UserError: for ``per_class`` without labels, labels without sub-folders, or
            class names that fit some sub-folders and not others.
    """

    #: Classes are numbered by their names, see :mod:`medic_mm.datasets.classes`.
    numbers_by_name = True

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        per_class: int | None = None,
        extensions: Sequence[str] = SUFFIXES,
        indices: int | Sequence[int] | None = None,
        draw_seed: int | None = 0,
        **kwargs,
    ) -> None:
        if per_class is not None and not with_label:
            raise UserError(f'per_class={per_class} needs labels: with_label=True')
        counted = indices is not None and not isinstance(indices, (list, tuple))
        for name, count, low in (
            ('per_class', per_class, 1),
            ('indices', indices if counted else None, 1),
            ('draw_seed', draw_seed, 0),
            ('max_refetch', kwargs.get('max_refetch'), 0),
        ):
            if count is not None:
                require_number(self, name, count, low=low, integer=True)
        if not counted:
            require_numbers(self, 'indices', indices or (), integer=True)
        self.per_class = per_class
        self.num_drawn = indices if counted else None
        self.draw_seed = draw_seed
        self.folder_to_idx: dict[str, int] = {}
        self.left_out: dict[str, list[str]] = {}
        super().__init__(
            data_root=data_root,
            with_label=with_label,
            extensions=extensions,
            indices=None if counted else indices,
            **kwargs,
        )

    def _find_samples(self) -> list:
        folder = Path(self.img_prefix)
        if '://' in str(self.img_prefix):  # a remote store: mmpretrain's own errors
            return super()._find_samples()
        if not folder.is_dir():
            raise MissingFileError(
                f'the image folder {folder} does not exist: set data_root (and '
                'data_prefix, which is joined to it) to the folder that holds the '
                'images'
            )
        samples = self._labelled(folder) if self.with_label else self._plain(folder)
        if self.left_out:
            MMLogger.get_current_instance().warning(
                name_left_out(self.left_out, folder)
            )
        if not samples:
            raise MissingFileError(
                f'the image folder {folder} holds no images with the extensions '
                f'{", ".join(sorted(self.extensions))}'
            )
        return samples

    def _plain(self, folder: Path) -> list[str]:
        found = find_image_files(folder, self.extensions)
        self.left_out = found.left_out
        return found.files

    def _labelled(self, folder: Path) -> list[tuple[str, int]]:
        pairs, found = find_labelled_files(folder, self.extensions)
        self.left_out = found.left_out
        if not found.folders:
            raise UserError(
                f'{folder} has no sub-folders to take as classes: sort the images into '
                'one folder a class, or set with_label=False'
            )
        numbers = number_folders(found.folders, super().CLASSES, folder)
        self.folder_to_idx = numbers
        log_numbers(folder, numbers, self.CLASSES, (numbers[name] for _, name in pairs))
        return [(path, numbers[name]) for path, name in pairs]

    def _listed(self) -> list[dict]:
        """The images of a list file, all lines looked at."""
        with errors_of_file(self.ann_file, 'list'):
            content = fileio.get(self.ann_file)
        classes = None if super().CLASSES is None else len(super().CLASSES)
        lines = parse_list(
            content, self.ann_file, self.with_label, classes, self.extensions
        )
        images = []
        for name, label in lines:
            path = fileio.join_path(self.img_prefix, name)
            labelled = {} if label is None else dict(gt_label=label)
            images.append(dict(img_path=path, **labelled))
        return images

    @property
    def CLASSES(self) -> Sequence[str] | None:
        """Names of the classes in the order of their numbers."""
        return super().CLASSES or tuple(self.folder_to_idx) or None

    @property
    def metainfo(self) -> dict:
        """What is known of the data set, its ``classes`` too.

        Also ``class_folders``, where the classes have words to show.
        """
        found = super().metainfo
        if self.CLASSES is not None:
            found['classes'] = self.CLASSES
        if self.folder_to_idx and not set(self.folder_to_idx) & set(self.CLASSES):
            found['class_folders'] = tuple(self.folder_to_idx)
        return found

    def load_data_list(self) -> list[dict]:
        """All images, or as many as ``per_class`` and ``indices`` say."""
        images = self._listed() if self.ann_file else super().load_data_list()
        if self.per_class is None and self.num_drawn is None:
            return images
        names = [os.path.relpath(x['img_path'], self.img_prefix) for x in images]
        labels = [x.get('gt_label') for x in images]
        kept = list(range(len(images)))
        if self.per_class is not None:
            ranks = ranks_in_class(names, labels, self.draw_seed)
            kept = [i for i in kept if ranks[i] < self.per_class]
        if self.num_drawn is not None:
            drawn = in_turns(
                [labels[i] for i in kept],
                self.num_drawn,
                self.draw_seed,
                [names[i] for i in kept],
            )
            kept = sorted(kept[i] for i in drawn)
        return [images[i] for i in kept]
