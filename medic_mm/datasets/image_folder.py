"""Images in a folder: one's own, without labels, or sorted into class folders."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from mmpretrain.datasets import CustomDataset

from medic_mm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """The host's ``CustomDataset``, by default without labels.

    Args:
        data_root: Folder of the images; sub-folders are searched too.
        with_label: Take the names of the sub-folders as classes.
        per_class: Keep only the first so many images of each class, in the order of
            their names. Needs labels.
        **kwargs: The host's arguments (``data_prefix``, ``ann_file``, ``extensions``,
            ``pipeline``, ...).

    Raises:
        FileNotFoundError: for a folder that is not there or holds no images.
        ValueError: for ``per_class`` without labels, or labels without sub-folders.
    """

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        per_class: int | None = None,
        **kwargs,
    ) -> None:
        if per_class is not None and not with_label:
            raise ValueError(f'per_class={per_class} needs labels: with_label=True')
        self.per_class = per_class
        super().__init__(data_root=data_root, with_label=with_label, **kwargs)

    def _find_samples(self) -> list:
        folder = Path(self.img_prefix)
        if '://' in str(self.img_prefix):  # a remote store: the host's own errors
            return super()._find_samples()
        if not folder.is_dir():
            raise FileNotFoundError(
                f'the image folder {folder} does not exist: set data_root (and '
                'data_prefix, which is joined to it) to the folder that holds the '
                'images'
            )
        if self.with_label and not any(entry.is_dir() for entry in os.scandir(folder)):
            raise ValueError(
                f'{folder} has no sub-folders to take as classes: sort the images into '
                'one folder a class, or set with_label=False'
            )
        try:
            return super()._find_samples()
        except RuntimeError as error:
            raise FileNotFoundError(
                f'the image folder {folder} holds no images with the extensions '
                f'{", ".join(sorted(self.extensions))}'
            ) from error

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
