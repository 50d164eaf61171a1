"""What pictures take from a config: its masks, images and models, and attention."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from medic_mm.datasets.class_lists import check_settings
from medic_mm.datasets.transforms import MaskTransform
from medic_mm.errors import UserError
from medic_mm.evaluation.loaders import find_dataloaders
from medic_mm.masking import masked_count
from medic_mm.pictures.common import class_of, enter_scope, load_whole, open_networks
from medic_mm.registry import DATASETS, MODELS, TRANSFORMS
from medic_mm.sampling import in_turns
from medic_mm.settings.images import find_images, load_images
from medic_mm.settings.student import RANDOM, seed_of

_PLAIN_SIZE, _PLAIN_GRID = (224, 224), (14, 14)
_LONGEST_NAME = 15


@dataclass(frozen=True)
class AttentionOfImages:
    """Images as they are shown, and what their patches attend to."""

    paths: list[Path]
    pictures: Tensor  # (B, 3, H, W), RGB in 0..1
    grid: tuple[int, int]  # rows and columns of patches, of the teacher if there is one
    attention: Tensor | None = None  # (B, L, L)
    notes: list[str] = field(default_factory=list)  # sentences for the user


def read_attention(
    config: Config | None,
    images: Sequence[str | Path],
    limit: int,
    device: str,
    with_teacher: bool = True,
) -> AttentionOfImages:
    """Read images as the config evaluates them, and the teacher's attention on them.

    Without a config, images have 224 px in 14 x 14 patches, and there is no attention.

    Raises:
        UserError: for images or a config that cannot be used.
    """
    if config is None:
        paths, plain = find_images(images, limit), Config()
        enter_scope(plain)
        pictures = load_images(plain, paths, _PLAIN_SIZE).flip(1) / 255
        note = 'Without a config there is no attention: no evolved masks.'
        return AttentionOfImages(paths, pictures, _PLAIN_GRID, notes=[note])
    wanted = 'attention' if with_teacher else None
    opened = open_networks(config, RANDOM, images, limit, device, wanted)
    backbone: Any = opened.student.backbone
    if getattr(backbone, 'patch_resolution', None) is None:
        raise UserError(
            f'model.backbone is {type(backbone).__name__}, which has no patches to '
            'mask: give the config of a plain ViT'
        )
    teacher: Any = opened.teacher
    pictures, read = opened.read(dict(teacher=lambda *x: teacher.patch_attention(*x)))
    own = tuple(backbone.patch_resolution)
    if 'teacher' not in read:
        return AttentionOfImages(opened.paths, pictures, own, None, opened.notes)
    grid = teacher.native_grid
    if grid != own:
        opened.notes.append(
            f'Masks are drawn on the {grid[0]} x {grid[1]} patches of the teacher; the '
            f'student has {own[0]} x {own[1]}.'
        )
    attention = torch.cat(read['teacher'])
    return AttentionOfImages(opened.paths, pictures, grid, attention, opened.notes)


def find_mask_transform(config: Config) -> dict | None:
    """Settings of the mask transform in the training pipeline, if it has one.

    Args:
        config: A config whose scope is entered. The settings are its own: what is
            changed in them is changed in the config.
    """
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset') is not None:  # wrappers such as RepeatDataset
        dataset = dataset['dataset']
    for step in _steps(dataset.get('pipeline') or []):
        kind = step.get('type')
        kind = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
        if isinstance(kind, type) and issubclass(kind, MaskTransform):
            return step
    return None


def count_masked(
    config: Config | None, ratio: float | None, grid: tuple[int, int]
) -> int:
    """Patches to hide: by the ratio, else as the config's own masks, else 40 %.

    Raises:
        UserError: for a ratio that leaves nothing to hide or nothing to see.
    """
    length = grid[0] * grid[1]
    own = _own_ratio(config) if config is not None else None
    share = ratio if ratio is not None else own if own is not None else 0.4
    count = masked_count(length, share) if 0 < share < 1 else 0
    if not 0 < count < length:
        raise UserError(
            f'--ratio {share:g} would hide {count} of {length} patches: use a share '
            f'between {1 / length:.2g} and 1'
        )
    return count


def least_block(config: Config | None) -> int:
    """``min_area`` of the config's ``BlockMask``, or 16."""
    step = find_mask_transform(config) if config is not None else None
    return (step or {}).get('min_area', 16)


def set_mask_ratio(config: Config, ratio: float) -> None:
    """Let a model hide another share of patches, in place; the scope is entered.

    Raises:
        UserError: for a ratio out of range, or a config that does not say how much is
            hidden.
    """
    if not 0 < ratio < 1:
        raise UserError(f'--ratio {ratio}: use a share above 0 and below 1')
    settings = _masking_settings(config)
    if settings is None:
        raise UserError(
            f'--ratio {ratio}: the config has no mask to change: put BlockMask, '
            'RandomMask or GridMask before PackInputs in its training pipeline'
        )
    settings['mask_ratio'] = ratio
    settings.pop('num_masked', None)
    if settings is config.model['backbone']:
        # MAE's rounds up, our masks down: half a patch less hides as many
        size, patch = settings.get('img_size', 224), settings.get('patch_size', 16)
        length = math.prod(side // patch for side in to_2tuple(size))
        settings['mask_ratio'] = (masked_count(length, ratio) - 0.5) / length


def _masking_settings(config: Config) -> dict | None:
    """Who is given the ratio: evolved masks, a transform, the model or its backbone."""
    model = config.model
    if model.get('masking') is not None:
        return model['masking']
    step = find_mask_transform(config)
    if step is not None:
        return step
    parts = (model, model['backbone'])
    return next((part for part in parts if 'mask_ratio' in _arguments(part)), None)


def _own_ratio(config: Config) -> float | None:
    """The mask ratio of the config's training, if it hides anything."""
    settings = _masking_settings(config)
    if settings is None:
        return None
    if settings.get('num_masked') is None and 'mask_ratio' in settings:
        return settings['mask_ratio']
    step = find_mask_transform(config)
    if settings is not step:
        return _arguments(settings)['mask_ratio']
    built = TRANSFORMS.build(step)
    return built.num_masked / math.prod(built.grid)


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model's class and their defaults, those of its bases included."""
    found: dict[str, Any] = {}
    for base in reversed(class_of(settings).__mro__):
        if '__init__' in vars(base):
            parameters = inspect.signature(base).parameters.values()
            found.update({p.name: p.default for p in parameters})
    return found


def _steps(pipeline: Sequence[Any]) -> Iterator[dict]:
    """The transforms of a pipeline, and those inside of them."""
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            inner = step.get('transforms')
            yield from _steps(inner if isinstance(inner, list | tuple) else [])


def choose_images(
    config: Config, images: Sequence[str | Path], size: Sequence[int], limit: int
) -> tuple[Tensor, list[str]]:
    """Images and their names: of the files given, else of the k-NN test data.

    Images of the config's data, whose scope must be entered, are drawn, one of each
    class in turn, the same in each call. ``size`` is the backbone's height and width.

    Returns:
        uint8 BGR ``(B, 3, H, W)``, and a short name for each: of the file or the class.

    Raises:
        UserError: for images that cannot be found or read, and where none are given
            and the config has no data for k-NN.
    """
    if limit < 1:
        raise UserError(f'--limit {limit}: use 1 or more')
    if images:
        paths = find_images(images, limit)
        return load_images(config, paths, size), [shorten(path.stem) for path in paths]
    try:
        settings = find_dataloaders(config)[1]['dataset']
    except UserError as error:
        raise UserError(f'no IMAGES are given, and {error}') from error
    check_settings(settings)
    try:
        dataset = DATASETS.build(copy.deepcopy(settings))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the config's images cannot be read: {error} (IMAGES names others)"
        ) from error
    labels = [dataset.get_data_info(i).get('gt_label') for i in range(len(dataset))]
    chosen = in_turns(labels, limit)
    inputs = [dataset[index]['inputs'] for index in chosen]
    wrong = {tuple(image.shape[1:]) for image in inputs} - {tuple(size)}
    if wrong:
        raise UserError(
            f"the config's k-NN test images are of {wrong.pop()} pixels but the "
            f'backbone takes {tuple(size)}: give IMAGES, which are resized'
        )
    return torch.stack(inputs), [_class_name(dataset, labels[i]) for i in chosen]


def shorten(name: str) -> str:
    """A name that fits above a small picture: the end of a long one."""
    return name if len(name) <= _LONGEST_NAME else f'…{name[1 - _LONGEST_NAME :]}'


def _class_name(dataset: object, label: int | None) -> str:
    classes = dataset.metainfo.get('classes')
    if label is None:
        return ''
    return shorten(str(classes[label] if classes else label))


def open_model(config: Config, checkpoint: str, device: torch.device) -> nn.Module:
    """The model of a config with all its weights, in eval mode.

    A teacher that has no part in predicting pixels is left out.

    Raises:
        UserError: for a checkpoint that does not fit the model, or a teacher that
            cannot be loaded.
    """
    settings = copy.deepcopy(dict(config.model))
    # the Runner lets a top-level data_preprocessor stand in for the model's own
    settings.setdefault('data_preprocessor', config.get('data_preprocessor'))
    set_random_seed(seed_of(config))
    try:
        model = MODELS.build(settings)
    except ValueError as error:
        raise UserError(f'the model of the config cannot be built: {error}') from error
    teacher = getattr(model, 'target_generator', None)
    if teacher is not None and not (teacher_decodes(model) or settings.get('masking')):
        model.target_generator = None
    elif teacher is not None:
        try:
            teacher.init_weights()
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f'the teacher, which the prediction needs, cannot be loaded: {error}'
            ) from error
    load_whole(model, checkpoint)
    return model.to(device).eval()


def teacher_decodes(model: nn.Module) -> bool:
    """Whether the pixels are those of the teacher's decoder, as in MIM-HD."""
    return hasattr(model, 'pixel_space')
