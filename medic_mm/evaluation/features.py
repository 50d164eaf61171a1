"""Features of labelled images: of a backbone, a teacher, or the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_gather, get_world_size
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from medic_mm.datasets.class_lists import compare_classes
from medic_mm.errors import UserError
from medic_mm.randomness import eval_mode


@dataclass
class Features:
    """Features of a data set, in its order, on the CPU.

    Attributes:
        values: Name to float32 ``(N, D)``.
        labels: Class of each image, int64 ``(N,)``.
    """

    values: dict[str, Tensor]
    labels: Tensor


class Encoder(Protocol):
    """What turns a batch of normalised images into named features.

    Attributes:
        module: Put into eval mode while it encodes, if not None.
    """

    @property
    def module(self) -> nn.Module | None: ...

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Encode ``(B, 3, H, W)``; each feature is ``(B, D)``."""


class TokenEncoder:
    """Class token (``cls``) and mean of the patch tokens (``mean``) of a backbone.

    Both are taken after the backbone's final norm, where it has one.

    Args:
        model: A self-supervised algorithm (its ``extract_feat`` runs the backbone
            without a mask), or anything that holds a ``backbone``. The backbone must
            give raw tokens ``(B, 1 + L, D)``.
        names: Which of ``'cls'`` and ``'mean'``.

    Raises:
        UserError: for an unknown name, a backbone with another output, or one without
            a class token where that is asked for.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str] = ('cls', 'mean')
    ) -> None:
        check_feature_names(names)
        self.module = model
        self.names = tuple(names)
        backbone = getattr(model, 'backbone', None)
        if backbone is None:
            raise UserError(
                f'{type(model).__name__} has no backbone: k-NN needs an algorithm with '
                'one'
            )
        self._extra = getattr(backbone, 'num_extra_tokens', 1)
        self._what = type(backbone).__name__
        if getattr(backbone, 'out_type', 'raw') != 'raw':
            raise UserError(
                f'backbone.out_type={backbone.out_type!r} of {self._what} gives no '
                "tokens: k-NN needs out_type='raw'"
            )
        if 'cls' in self.names and self._extra == 0:
            raise UserError(
                f"features has 'cls' but {self._what} has no class token: use 'mean'"
            )

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Encode a batch; each feature is ``(B, D)``."""
        extract_feat = cast(Callable[[Tensor], Any], self.module.extract_feat)
        outputs = extract_feat(images)
        tokens = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
        if tokens.ndim != 3 or tokens.shape[1] <= self._extra:
            raise UserError(
                f'{self._what} gives {tuple(tokens.shape)}: k-NN needs raw tokens '
                '(B, 1 + L, D)'
            )
        tokens = tokens.float()
        found = {'cls': tokens[:, 0], 'mean': tokens[:, self._extra :].mean(dim=1)}
        return {name: found[name] for name in self.names}


class TeacherEncoder:
    """Class token (``cls``) and mean patch token (``mean``) of a frozen teacher.

    Args:
        teacher: A :class:`medic_mm.models.teachers.FrozenTeacher` with its weights. It
            gets images alone: give the teacher itself, not a cache of fixed views.
        data_preprocessor: The one that normalised the images; the teacher undoes it.
    """

    module = None

    def __init__(self, teacher: nn.Module, data_preprocessor: nn.Module) -> None:
        self._teacher = teacher
        self._preprocessor = data_preprocessor

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Encode a batch; each feature is ``(B, D)``."""
        preprocessor = self._preprocessor
        output = self._teacher(images, preprocessor.mean, preprocessor.std)
        return {
            'cls': output.cls_token.float(),
            'mean': output.patch_tokens.float().mean(dim=1),
        }


class PixelEncoder:
    """The normalised image itself, flattened (``pixels``)."""

    module = None

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Flatten a batch to ``(B, 3 * H * W)``."""
        return {'pixels': images.flatten(1)}


@torch.no_grad()
def extract_features(
    encode: Encoder, data_preprocessor: nn.Module, dataloader: DataLoader
) -> Features:
    """Encode a whole data set, in its order, without gradients.

    Each process encodes its share; afterwards all of them hold all features. Modes of
    modules are left as they were found. Runs under the caller's autocast.

    Args:
        encode: One of the encoders of this module, or the like.
        data_preprocessor: Normalises batches and moves them to its device.
        dataloader: Batches of ``inputs`` and ``data_samples`` with ``gt_label``, from a
            ``DefaultSampler`` with ``shuffle=False``, collated by ``default_collate``.

    Raises:
        UserError: for a shuffling sampler, batches of another form, or samples without
            one label each.
    """
    total, share = check_order(dataloader)
    shards: dict[str, Tensor] = {}
    labels = torch.empty(share, dtype=torch.int64)
    done = 0
    with eval_mode(encode.module), eval_mode(data_preprocessor):
        for batch in dataloader:
            images, batch_labels = _open_batch(batch, data_preprocessor)
            found = encode(images)
            rows = slice(done, done + len(images))
            for name, value in found.items():
                if name not in shards:
                    shards[name] = torch.empty(share, value.shape[1])
                shards[name][rows] = value
            labels[rows] = batch_labels
            done = rows.stop
    if done != share:
        raise UserError(
            f'the data loader gave {done} of its {share} images: use drop_last=False'
        )
    return Features(
        {name: _gather(shards[name], total) for name in shards}, _gather(labels, total)
    )


def loader_settings(config: dict) -> dict:
    """A loader's config with what k-NN needs and most leave out.

    Samples in order (``DefaultSampler``, ``shuffle=False``) and ``default_collate``,
    unless the config says something else.
    """
    defaults = dict(
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    return {**defaults, **config}


def check_order(dataloader: DataLoader) -> tuple[int, int]:
    """Number of images of a loader, and how many of them this process encodes.

    Raises:
        UserError: for a sampler that does not deal all images out in order.
    """
    sampler: Any = dataloader.sampler
    total = len(cast(Sized, dataloader.dataset))
    world = get_world_size()
    dealt = isinstance(sampler, DefaultSampler) and not sampler.shuffle
    if dealt and world > 1:
        dealt = sampler.round_up
    if not (dealt or (world == 1 and isinstance(sampler, SequentialSampler))):
        raise UserError(
            f'the sampler of k-NN is {type(sampler).__name__} but features must be in '
            "order: use sampler=dict(type='DefaultSampler', shuffle=False)"
        )
    return total, len(sampler)


def check_feature_names(names: Sequence[str]) -> None:
    """Refuse names of features that no backbone has."""
    unknown = [name for name in names if name not in ('cls', 'mean')]
    if unknown or not names or isinstance(names, str):
        raise UserError(
            f"features={names!r} must be a list with 'cls' (class token), 'mean' (mean "
            'of patch tokens) or both'
        )


def count_classes(train_dataset: Any, test_dataset: Any) -> int:
    """Number of classes of two data sets with labels, by what they say of themselves.

    Looks at the first sample of each, so that a data set without labels is found out
    before any work.

    Raises:
        UserError: for an empty data set, one without ``gt_label``, without
            ``metainfo['classes']`` on both sides, with different classes, or with one
            class alone.
    """
    datasets = {'train': train_dataset, 'test': test_dataset}
    for name, dataset in datasets.items():
        if len(dataset) == 0:
            raise UserError(f'the {name} data set of k-NN is empty')
        sample = dataset[0]
        if not isinstance(sample, dict) or 'data_samples' not in sample:
            raise UserError(
                f'the {name} data set of k-NN gives no data_samples: end its pipeline '
                'with PackInputs'
            )
        _one_label(sample['data_samples'], f'the {name} data set of k-NN')
    count = compare_classes(datasets, ' of k-NN')
    if count is None:
        raise UserError(
            'the number of classes for k-NN is unknown: set '
            'metainfo=dict(classes=[...]) in its train data set'
        )
    if count == 1:
        raise UserError(
            'the data sets of k-NN have one class, so every answer is right: sort the '
            'images into two classes or more'
        )
    return count


def _open_batch(batch: Any, data_preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not samples:
        raise UserError(
            'the batches of k-NN have no data_samples: end the pipeline with PackInputs'
        )
    # labels are read before the samples move: no copy back from the device
    labels = [_one_label(sample, 'a data set of k-NN') for sample in samples]
    images = data_preprocessor(batch, False)['inputs']
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise UserError(
            'the batches of k-NN are no stacked images: use '
            "collate_fn=dict(type='default_collate') and one view of one size per image"
        )
    return images, torch.tensor(labels)


def _one_label(sample: Any, name: str) -> int:
    if 'gt_label' not in sample:
        raise UserError(
            f'{name} has no labels (gt_label is missing): k-NN needs a data set with '
            'classes, for example medic_mm.ImageFolder with with_label=True'
        )
    label = torch.as_tensor(sample.gt_label)
    if label.numel() != 1:
        raise UserError(
            f'{name} has {label.numel()} labels for an image: k-NN needs exactly one'
        )
    return int(label)


def _gather(local: Tensor, total: int) -> Tensor:
    world = get_world_size()
    if world == 1:
        return local
    # DefaultSampler deals image i to process i % world and fills up from the beginning
    dealt = torch.stack(all_gather(local), dim=1)  # (share, world, ...)
    return dealt.flatten(0, 1)[:total]
