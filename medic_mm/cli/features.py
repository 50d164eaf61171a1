"""Write the features that a pre-trained backbone gives of images.

    medic-mm features IMAGES --checkpoint FILE --out cls.safetensors
    medic-mm features IMAGES --model NAME/MODEL --out cls.safetensors

IMAGES are files or folders. The file gets the tensor ``features``, one row an image;
its metadata say which file each row is, and which files were skipped.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from medic_mm.checkpoints.saving import save_weights
from medic_mm.datasets.decoding import UnreadableImage, read_image
from medic_mm.errors import UserError
from medic_mm.export.load import POOLS, check_pool, load_model, pooled_tokens
from medic_mm.helpers import choose_device
from medic_mm.settings.arguments import add_shared
from medic_mm.settings.images import find_images

_HEADER_LIMIT = 90_000_000  # bytes of names: the format's own limit is a little more


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add_shared(parser, 'images')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--checkpoint', help='a checkpoint of pre-training')
    source.add_argument('--model', help='an exported folder, or an id of the Hub')
    add = parser.add_argument
    add('--out', type=Path, required=True, help='file, .safetensors')
    add(
        '--layer',
        type=int,
        help='a block from 1, its output without norm; default: last, final norm',
    )
    add('--pool', choices=POOLS, default='cls')
    add('--batch-size', type=int, default=64)
    add('--workers', type=int, default=2, help='that read images')
    add_shared(parser, '--config', '--img-size', '--device')


def run(args: Namespace) -> None:
    """Write the features; print what was skipped and what was written."""
    settings = dict(vars(args))
    sources = settings.pop('checkpoint'), settings.pop('model')
    features = extract_features(source=sources[0] or sources[1], **settings)
    for file, reason in features.skipped.items():
        print(f'skipped {file}: {reason}')
    print(
        f'wrote {args.out}: {tuple(features.values.shape)}, {len(features.files)} '
        f'images, {len(features.skipped)} skipped, {features.seconds:.1f} s'
    )


@dataclass(frozen=True)
class ImageFeatures:
    """Features of image files, in the order of their names.

    Attributes:
        values: float32 on the CPU: ``(N, D)``, or ``(N, 1 + L, D)`` for all tokens.
        files: The file of each row.
        skipped: Files that cannot be read as images, and why.
        seconds: Time for reading and encoding.
    """

    values: Tensor
    files: list[str]
    skipped: dict[str, str]
    seconds: float


class _Images(Dataset):
    """Prepared images; for a broken file its reason in place of a tensor."""

    def __init__(self, paths: Sequence[Path], transforms: Callable) -> None:
        self.paths = paths
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | str:
        path = self.paths[index]
        try:
            pixels = read_image(path)
        except UnreadableImage as error:
            return str(error).removeprefix(f'the image {path} cannot be read: ')
        return self.transforms(Image.fromarray(pixels))


@torch.no_grad()
def _encode(
    model: VisionTransformer,
    paths: Sequence[Path],
    layer: int | None,
    pool: str,
    batch_size: int,
    workers: int,
) -> ImageFeatures:
    """Encode image files in batches, on the model's device; shows a bar."""
    check_pool(model, layer, pool)
    if batch_size < 1 or workers < 0:
        raise ValueError(
            f'batch_size={batch_size}, workers={workers}: use 1 or more, 0 or more'
        )
    start = time.perf_counter()
    data = _Images(paths, model.transforms)
    loader = DataLoader(data, batch_size, num_workers=workers, collate_fn=list)
    device = next(model.parameters()).device
    values: Tensor | None = None
    files: list[str] = []
    skipped: dict[str, str] = {}
    # disable=None: no bar, and no control codes, where the output is not a terminal
    bar = tqdm(total=len(paths), unit=' images', disable=None)
    names = map(str, paths)
    for batch in loader:
        first, images = len(files), []
        for item, name in zip(batch, names, strict=False):
            if isinstance(item, Tensor):
                files.append(name)
                images.append(item)
            else:
                skipped[name] = item
        if images:
            inputs = torch.stack(images).to(device)
            found = pooled_tokens(model, inputs, layer, pool).float().cpu()
            if values is None:
                values = torch.empty(len(paths), *found.shape[1:])
            values[first : len(files)] = found
        bar.update(len(batch))
    bar.close()
    if values is None:
        raise ValueError(
            f'none of {len(paths)} files is a readable image: the first is {paths[0]}'
        )
    seconds = time.perf_counter() - start
    return ImageFeatures(values[: len(files)], files, skipped, seconds)


def extract_features(
    images: Sequence[str | Path],
    source: str | Path,
    out: str | Path,
    config: str | Path | None = None,
    layer: int | None = None,
    pool: str = 'cls',
    batch_size: int = 64,
    workers: int = 2,
    device: str = 'auto',
    img_size: int | None = None,
) -> ImageFeatures:
    """Write the features of image files as a ``.safetensors`` file.

    It holds the tensor ``features`` and, as metadata, ``files`` (JSON list: the file of
    each row), ``skipped`` (JSON: file to reason) and what was asked for.

    Args:
        images: Files, and folders that are searched with their sub-folders.
        source: What :func:`medic_mm.load_model` takes.
        out: The file to write.
        config: Config of a checkpoint that does not carry it.
        layer: A block from 1, as it is; default: the last after the final norm.
        pool: ``'cls'``, ``'mean'`` or ``'tokens'``.
        batch_size: Images at once.
        workers: Processes that read images.
        device: For example ``'cpu'`` or ``'cuda:1'``; ``'auto'`` takes an accelerator
            where there is one.
        img_size: Another size of images.

    Raises:
        UserError: for anything that cannot be used; one sentence says why.
    """
    out = Path(out)
    if out.suffix != '.safetensors' or out.is_dir():
        raise UserError(f'--out {out}: use a file name with .safetensors')
    paths = find_images(images, limit=sys.maxsize)
    header = sum(len(str(path).encode()) + 4 for path in paths)
    if header > _HEADER_LIMIT:
        raise UserError(
            f'the names of {len(paths)} images do not fit into one .safetensors file: '
            'extract them in parts'
        )
    try:
        model = load_model(source, config, img_size=img_size)
        model.to(choose_device(device))
        features = _encode(model, paths, layer, pool, batch_size, workers)
        facts = dict(
            files=features.files,
            skipped=features.skipped,
            source=str(source),
            layer=layer,
            pool=pool,
            **{key: model.pretrained_cfg[key] for key in ('input_size', 'mean', 'std')},
        )
        texts = {key: json.dumps(value) for key, value in facts.items()}
        save_weights({'features': features.values}, out, texts)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(' '.join(str(error).split())) from error
    return features
