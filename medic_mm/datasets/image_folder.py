"""Images in a folder: one's own, without labels, or sorted into class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset

from medic_mm.datasets.image_files import (
    SUFFIXES,
    find_image_files,
    find_labelled_files,
    name_left_out,
)
from medic_mm.errors import MissingFileError, UserError
from medic_mm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """The host's ``CustomDataset``, by default without labels.

    Args:
        data_root: Folder of the images; sub-folders are searched too.
        with_label: Take the names of the sub-folders as classes.
        per_class: Keep only the first so many images of each class, in the order of
            their names. Needs labels.
        extensions: Endings of names of image files.
        **kwargs: The host's arguments (``data_prefix``, ``ann_file``, ``pipeline``,
            ...).

    Attributes:
        left_out: Reason to the files and folders below ``data_prefix`` that are not
            taken, see :mod:`medic_mm.datasets.image_files`.

    Raises:
        FileNotFoundError: for a folder that is not there or holds no images.
        ValueError: for ``per_class`` without labels, or labels without sub-folders.
    """

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        per_class: int | None = None,
        extensions: Sequence[str] = SUFFIXES,
        **kwargs,
    ) -> None:
        if per_class is not None and not with_label:
            raise UserError(f'per_class={per_class} needs labels: with_label=True')
        self.per_class = per_class
        self.left_out: dict[str, list[str]] = {}
        super().__init__(
            data_root=data_root,
            with_label=with_label,
            extensions=extensions,
            **kwargs,
        )

    def _find_samples(self) -> list:
        folder = Path(self.img_prefix)
        if '://' in str(self.img_prefix):  # a remote store: the host's own errors
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
        numbers = {name: number for number, name in enumerate(found.folders)}
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(found.folders)
        elif len(self.CLASSES) != len(found.folders):
            raise UserError(
                f'{folder} has {len(found.folders)} class folders but '
                f'metainfo.classes names {len(self.CLASSES)}'
            )
        self.folder_to_idx = numbers
        return [(path, numbers[name]) for path, name in pairs]

    def load_data_list(self) -> list[dict]:
        """All images, or the first ``per_class`` of each class."""
        images = super().load_data_list()
        if self.per_class is None:
            return images
        seen: Counter[int] = Counter()
        kept = []
        for image in images:
            seen[image['gt_label']] += 1
            if seen[image['gt_label']] <= self.per_class:
                kept.append(image)
        return kept
