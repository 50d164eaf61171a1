"""Data sets of an evaluation: those that have configs, and data of one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.datasets.image_files import find_image_files, is_hidden
from medic_mm.datasets.segmentation_files import count_classes
from medic_mm.errors import UserError
from medic_mm.helpers import listed


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: Short, for folders and the command line.
        title: Its name in texts.
        kinds: Keys of :data:`SUITE` that it is for.
        parts: Folders that it must have.
        places: Where it may lie below the root of the data; the first is preferred.
        large: Whether its recipes are for images of 160 px or more; None: for all.
        folder: Where it lies, of data that the user names.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    parts: tuple[str, ...]
    places: tuple[str, ...] = ()
    large: bool | None = None
    folder: Path | None = None

    def find(self, roots: Sequence[Path]) -> Path:
        """Its folder; raises LookupError with the reason where it is incomplete."""
        found = [root / place for root in roots for place in self.places]
        folder = self.folder or next(filter(Path.is_dir, found), None)
        if folder is None:
            raise LookupError(f'{listed(roots)} has no {self.places[0]}')
        missing = [part for part in self.parts if not (folder / part).is_dir()]
        if missing:
            raise LookupError(f'{folder} has no {" and no ".join(missing)}')
        return folder.absolute()


def _halves(*splits: str) -> tuple[str, ...]:
    return tuple(f'{x}/{y}' for x in ('images', 'annotations') for y in splits)


_LABELLED = (('knn', 'linear', 'finetune'), ('train', 'val'))
_ADE = 'ADEChallengeData2016'
DATASETS = {
    x.name: x
    for x in (
        Dataset('cifar10', 'CIFAR-10', *_LABELLED, ('cifar10',), False),
        Dataset('imagenet', 'ImageNet-1K', *_LABELLED, ('imagenet',), True),
        Dataset(
            *('camvid', 'CamVid', ('segmentation',), _halves('train', 'test')),
            *(('camvid',), False),
        ),
        Dataset(
            *('ade20k', 'ADE20K', ('segmentation',), _halves('training', 'validation')),
            *((_ADE, f'ade/{_ADE}'), True),
        ),
    )
}


def read_data(given: Sequence[str | Path]) -> tuple[list[Path], dict[str, Dataset]]:
    """Folders of data sets, and the data sets that are named."""
    roots, named = [], {}
    for text in map(str, given):
        name, sign, path = text.partition('=')
        own = bool(sign and re.fullmatch(r'[\w.-]+', name)) and not Path(text).exists()
        folder = Path(path if own else text)
        if not folder.is_dir():
            raise UserError(f"--data: folder '{folder}' does not exist")
        if not own:
            roots.append(folder)
        elif name in named:
            raise UserError(f'--data: {name} is given twice')
        elif name in DATASETS:
            named[name] = replace(DATASETS[name], folder=folder)
        else:
            named[name] = _own_data(name, folder)
    return roots, named


def _own_data(name: str, folder: Path) -> Dataset:
    if all((folder / x).is_dir() for x in ('images', 'annotations')):
        splits = [
            next((x for x in names if (folder / 'images' / x).is_dir()), names[0])
            for names in (('train', 'training'), ('val', 'validation'))
        ]
        found = Dataset(
            *(name, name, ('segmentation',), _halves(*splits)), folder=folder
        )
    else:
        found = Dataset(name, name, *_LABELLED, folder=folder)
    try:
        found.find(())
    except LookupError as error:
        raise UserError(
            f'--data {name}={folder}: {error.args[0]}; a data set for classification '
            'has train/ and val/ with a folder for each class, one for segmentation '
            'has images/ and annotations/, each with train/ and val/'
        ) from None
    return found


def own_changes(data: Dataset, kind: str, config: Config) -> dict[str, Any]:
    """Data that the user names in place of the recipe's, by dotted keys."""
    assert data.folder is not None
    folder = data.folder.absolute()
    changes: dict[str, Any] = {}
    train, val = data.parts[:2]
    splits = dict(train=train, val=val, test=val)
    if kind == 'finetune':
        classes = _class_folders(folder)
        images = len(find_image_files(folder / 'train').files)
        batch = min(images, config.train_dataloader.batch_size)
        changes['train_dataloader.batch_size'] = batch
        changes['data_preprocessor.num_classes'] = len(classes)
        changes['model.head.num_classes'] = len(classes)
        for split in ('val', 'test'):
            metric = dict(_delete_=True, type='Accuracy', topk=(1,))
            changes[f'{split}_evaluator'] = metric
    else:
        classes = _mask_classes(data, folder)
        for head in ('decode_head', 'auxiliary_head'):
            changes[f'model.{head}.num_classes'] = len(classes)
    for split, part in splits.items():
        pipeline = config[f'{split}_dataloader'].dataset.pipeline
        if kind == 'finetune':
            dataset = own_images(folder, part, pipeline)
        else:
            dataset = _own_masks(folder, part, pipeline, classes)
        changes[f'{split}_dataloader.dataset'] = dict(dataset, _delete_=True)
    return changes


def _class_folders(folder: Path) -> list[str]:
    found = [x.name for x in (folder / 'train').iterdir() if x.is_dir()]
    return sorted(name for name in found if not is_hidden(name))


def own_images(folder: Path, split: str, pipeline: Sequence) -> dict[str, Any]:
    return dict(
        type='medic_mm.ImageFolder',
        data_root=str(folder),
        data_prefix=split,
        with_label=True,
        metainfo=dict(classes=_class_folders(folder)),
        pipeline=[dict(x) for x in pipeline],
    )


def _own_masks(
    folder: Path, part: str, pipeline: Sequence, classes: list[str]
) -> dict[str, Any]:
    masks = part.replace('images', 'annotations')
    return dict(
        type='BaseSegDataset',
        data_root=str(folder),
        metainfo=dict(classes=classes),
        img_suffix=_suffix(folder / part),
        seg_map_suffix=_suffix(folder / masks),
        data_prefix=dict(img_path=part, seg_map_path=masks),
        # ADE20K's masks count from 1
        pipeline=[
            {key: value for key, value in x.items() if key != 'reduce_zero_label'}
            for x in pipeline
        ],
    )


def _mask_classes(data: Dataset, folder: Path) -> list[str]:
    """Names of the classes: ``classes.txt``, else their numbers in all masks."""
    names = folder / 'classes.txt'
    if names.is_file():
        classes = [x.strip() for x in names.read_text(encoding='utf-8').splitlines()]
        classes = [name for name in classes if name]
    else:
        masks = [folder / x for x in data.parts if x.startswith('annotations/')]
        classes = [str(number) for number in range(count_classes(masks))]
    if len(classes) < 2:
        raise UserError(f'--data {data.name}={folder}: its masks have one class alone')
    return classes


def _suffix(folder: Path) -> str:
    found = sorted({Path(x).suffix for x in find_image_files(folder).files})
    if len(found) != 1:
        raise UserError(
            f'--data: {folder} holds images that end with {listed(found)}: mmseg takes '
            'those with one ending'
        )
    return found[0]
