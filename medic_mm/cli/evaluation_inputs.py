"""What an evaluation is given: a student and data sets, also of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.checkpoints.openmmlab import read_config_file
from medic_mm.datasets.image_files import find_image_files, is_hidden
from medic_mm.datasets.segmentation_files import count_classes
from medic_mm.errors import UserError
from medic_mm.export.source import read_source
from medic_mm.helpers import listed, type_name
from medic_mm.models.vit.architecture import describe_backbone
from medic_mm.registry import MODELS
from medic_mm.settings.pretrained import RANDOM

#: What a recipe takes from the student; positions are resized
SIZES = ('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'patch_size')
# MEDiC trains the class token, the others the patch tokens
_FAMILIES = {'MEDiC': 'medic-pre', 'MIMHD': 'mimhd-pre', 'MAE': 'mimhd-pre'}
# mmpretrain's BEiT, and its defaults
_BEIT = {
    'BEiTViT': dict(use_rel_pos_bias=True, layer_scale_init_value=0.1),
    'BEiTPretrainViT': dict(use_shared_rel_pos_bias=True, layer_scale_init_value=0.1),
}


@dataclass(frozen=True)
class PretrainedStudent:
    """What is evaluated.

    ``network`` is what :func:`describe_network` says; None, with the ``problem``, for a
    backbone of one's own. ``trusted``: the user gave the config (``settings``), else
    the checkpoint carried it.
    """

    checkpoint: str
    settings: dict[str, Any]
    network: dict[str, Any] | None
    problem: str = ''
    trusted: bool = False

    @property
    def backbone(self) -> dict[str, Any]:
        """``model.backbone`` of the config."""
        return self.settings['model']['backbone']

    @property
    def family(self) -> str:
        """``'medic-pre'`` for MEDiC and what is built on it, else ``'mimhd-pre'``.

        Recipes of the second read the mean patch token, which each method trains.
        """
        model = self.settings['model']
        names = [type_name(model)]
        if self.trusted and isinstance(model.get('type'), str):
            # a registry imports what a type names: not for a downloaded config
            names += [
                x.__name__ for x in getattr(MODELS.get(model['type']), 'mro', list)()
            ]
        return next((_FAMILIES[x] for x in names if x in _FAMILIES), 'mimhd-pre')

    @property
    def image_size(self) -> int:
        """Side of its images."""
        size = self.backbone.get('img_size', 224)
        return int(size if isinstance(size, int) else max(size))

    @property
    def title(self) -> str:
        """For example ``'ViT of 12 blocks, 768 wide, patches of 16, LayerScale'``."""
        if self.network is None:
            return f'{self.backbone.get("type")} ({self.problem})'
        scale = 'LayerScale' if has_layer_scale(self.backbone) else 'no LayerScale'
        return (
            f'{self.network["kind"]} of {self.network["depth"]} blocks, '
            f'{self.network["embed_dim"]} wide, patches of '
            f'{self.network["patch_size"]}, {scale}'
        )


def read_student(checkpoint: str, config: Path | None = None) -> PretrainedStudent:
    """Find out which student a checkpoint holds.

    The config in the checkpoint is read without running it; ``'random'`` needs one.

    Raises:
        UserError: for no such file, one that is torn, carries code or has no
            backbone, and where there is no config.
    """
    if config is not None and not config.is_file():
        raise UserError(f"--config: config '{config}' does not exist")
    if checkpoint == RANDOM:
        if config is None:
            raise UserError(
                "checkpoint 'random' needs --config CONFIG: the pre-training whose "
                'student is drawn at random'
            )
        settings = read_config_file(config)
        if not isinstance((settings.get('model') or {}).get('backbone'), dict):
            raise UserError(f'--config: {config} has no model.backbone')
    elif not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint!r} does not exist')
    else:
        try:
            settings = read_source(checkpoint, config).config
        except RuntimeError as error:
            raise UserError(str(error)) from error
    network, problem = None, ''
    try:
        network = describe_network(settings['model']['backbone'])
    except ValueError as error:
        problem = str(error)
    return PretrainedStudent(checkpoint, settings, network, problem, config is not None)


def describe_network(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What two backbones must share for the weights of one to fit the other.

    Raises:
        ValueError: for a backbone that is neither a ViT nor a BEiT.
    """
    kind, name = backbone.get('type'), type_name(backbone)
    if isinstance(kind, str) and kind.rpartition('.')[0] not in (
        *('', 'medic_mm', 'mmpretrain'),
    ):
        raise ValueError(f'backbone.type={kind!r} is neither ours nor of mmpretrain')
    settings, positions = dict(backbone), {}
    if name in _BEIT:
        settings = {**_BEIT[name], **settings, 'type': 'VisionTransformer'}
        # a table for all blocks can be copied to each of them
        tables = [
            settings.pop(key, False)
            for key in ('use_rel_pos_bias', 'use_shared_rel_pos_bias')
        ]
        positions['relative'] = any(tables)
        positions['absolute'] = settings.pop('use_abs_pos_emb', False)
        for key in ('bias', 'patch_cfg', 'out_type', 'final_norm'):
            settings.pop(key, None)  # a Vision Transformer lacks them
        if isinstance(arch := settings.get('arch', 'base'), str):
            from mmpretrain.models.backbones import BEiTViT

            if arch.lower() not in BEiTViT.arch_zoo:
                raise ValueError(f'backbone.arch={arch!r} is unknown to {name}')
            settings['arch'] = BEiTViT.arch_zoo[arch.lower()]
    found = describe_backbone(settings).arguments
    shape = {key: found[key] for key in (*SIZES, 'in_chans')}
    return {**shape, **positions, 'kind': 'BEiT' if name in _BEIT else 'ViT'}


def has_layer_scale(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone of either kind scales its branches."""
    default = _BEIT.get(type_name(backbone), {}).get('layer_scale_init_value', 0.0)
    return backbone.get('layer_scale_init_value', default) > 0


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
