"""A pre-trained backbone as a timm network, from wherever it lies, and its tokens."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import timm
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, cat

from medic_mm.checkpoints import convert_keys, read_state_dict
from medic_mm.checkpoints.strict import load_strictly, require_numbers
from medic_mm.errors import FileError, MissingFileError, UserError
from medic_mm.export.preprocessing import Preprocessing, build_transforms
from medic_mm.export.source import Source, describe_source, read_source
from medic_mm.helpers import first_line
from medic_mm.models.vit.architecture import Architecture

#: What :func:`pooled_tokens` gives.
POOLS = ('cls', 'mean', 'tokens')

_HUB = 'hf-hub:'
_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+(@[\w./-]+)?')
# the names that timm looks for, in its order
_PREFERRED = tuple(
    f'{start}{name}'
    for start in ('', 'open_clip_')
    for name in (
        *('model.safetensors', 'pytorch_model.safetensors'),
        *('pytorch_model.bin', 'pytorch_model.pth', 'model.pth'),
    )
)
_WEIGHT_FILES = ('.pth', '.pt', '.bin', '.safetensors', '.ckpt')


def load_model(
    source: str | os.PathLike,
    config: str | os.PathLike | Mapping | None = None,
    num_classes: int = 0,
    img_size: int | tuple[int, int] | None = None,
) -> VisionTransformer:
    """A ready Vision Transformer of timm, in eval mode, with its transforms.

    ``model(images)`` is the class token after the final norm ``(B, D)``, and
    ``model.forward_features(images)`` all tokens ``(B, 1 + L, D)``, equal to those of
    the pre-trained backbone on whole images. LayerScale is kept.
    ``model.transforms(image)`` prepares one PIL image as the evaluation of the
    pre-training did: a normalised tensor ``(3, H, W)``.

    Args:
        source: A checkpoint of this package (its own config gives the architecture), a
            folder of ``tools/export_hf.py`` or of any timm ViT, or the id of such a
            folder on the Hugging Face Hub (``'name/model'``, ``'hf-hub:name/model'``).
        config: Config of the pre-training, for a checkpoint that does not carry it.
        num_classes: Outputs of a new linear head, which starts at random. 0: no head.
        img_size: Another size of images; timm resizes the position embeddings.

    Raises:
        FileNotFoundError: for no such file or folder.
        ValueError: for a backbone that timm's ViT cannot be.
        RuntimeError: for a file that is torn, carries code, is not a checkpoint of a
            backbone or has no config; a folder or an id that timm cannot load.
    """
    path = Path(source)
    if path.is_file():
        checkpoint = read_source(path, config)
        architecture, preprocessing = describe_source(checkpoint)
        for note in preprocessing.notes:
            warnings.warn(f'{path}: {note}', stacklevel=2)
        model = build_vit(checkpoint, architecture, preprocessing, num_classes)
    elif config is not None:
        raise UserError(f'config is for a checkpoint file, and {source} is not one')
    elif path.is_dir():
        model = _from_folder(path, num_classes)
    else:
        model = _from_hub(os.fspath(source), num_classes)
    if img_size is not None:
        _resize(model, img_size)
    # plain attributes: no part of the state dict
    model.transforms = build_transforms(resolve_model_data_config(model))
    return model.eval()


def build_vit(
    source: Source,
    architecture: Architecture,
    preprocessing: Preprocessing,
    num_classes: int = 0,
) -> VisionTransformer:
    """Build the network of a checkpoint and load the weights, strictly.

    Raises:
        FileError: where weights and config do not fit.
    """
    model = timm.create_model(
        architecture.name,
        pretrained=False,
        pretrained_cfg=preprocessing.timm_settings(),
        num_classes=num_classes,
        **architecture.arguments,
    )
    origin = f'checkpoint {source.path}'
    try:
        weights = convert_keys(source.weights, 'mmpretrain', 'timm')
    except UserError as error:
        raise FileError(f'{origin}: {error}') from error
    load_strictly(
        model,
        weights,
        origin,
        'The names are those of timm; the config must be of the same pre-training',
        new=('head.',),
    )
    if architecture.last_block_heads is not None:
        attention = model.blocks[-1].attn
        attention.num_heads = architecture.last_block_heads
        attention.head_dim = model.embed_dim // attention.num_heads
        attention.scale = attention.head_dim**-0.5
    return model


def check_pool(vit: VisionTransformer, layer: int | None, pool: str) -> None:
    """Refuse tokens that a network does not have, before :func:`pooled_tokens`.

    Raises:
        UserError: names the setting and what would be right.
    """
    depth = len(vit.blocks)
    if layer is not None and not 1 <= layer <= depth:
        raise UserError(f'layer={layer} is out of range: the network has 1 to {depth}')
    if pool not in POOLS:
        raise UserError(f'pool={pool!r} is unknown: use one of {", ".join(POOLS)}')
    if pool == 'cls' and not vit.has_class_token:
        raise UserError("pool='cls' needs a class token, which the network lacks")


def pooled_tokens(
    vit: VisionTransformer, images: Tensor, layer: int | None = None, pool: str = 'cls'
) -> Tensor:
    """Encode normalised images ``(B, 3, H, W)``.

    Args:
        vit: The network, in eval mode.
        images: As its ``transforms`` prepare them.
        layer: A block, counted from 1: its output as it is, without any norm; nothing
            after it is run. Default: the last block's output after the final norm.
        pool: ``'cls'`` (class token), ``'mean'`` (mean of the patch tokens), both
            ``(B, D)``, or ``'tokens'`` (all, class token first, ``(B, 1 + L, D)``).
    """
    if layer is None:
        tokens = vit.forward_features(images)
    else:
        patches, prefix = vit.forward_intermediates(
            images,
            indices=[layer - 1],
            return_prefix_tokens=True,
            norm=False,
            stop_early=True,
            output_fmt='NLC',
            intermediates_only=True,
        )[0]
        # (B, P, D) + (B, L, D) -> (B, P + L, D)
        tokens = patches if prefix is None else cat((prefix, patches), 1)
    if pool == 'cls':
        return tokens[:, 0]
    return tokens[:, vit.num_prefix_tokens :].mean(1) if pool == 'mean' else tokens


def _from_folder(path: Path, num_classes: int) -> VisionTransformer:
    if not (path / 'config.json').is_file():
        raise FileError(
            f'folder {path} has no config.json: give a folder of tools/export_hf.py, '
            'or the file of a checkpoint'
        )
    files = [path / name for name in _PREFERRED if (path / name).is_file()]
    files = files or sorted(f for f in path.iterdir() if f.suffix in _WEIGHT_FILES)
    model = _by_timm(f'local-dir:{path}', f'folder {path}', num_classes)
    # timm took the first; it runs no code, but looks neither at checksums nor numbers
    weights = read_state_dict(files[0], mmap=True) if files else {}
    own = model.state_dict()
    used = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].is_floating_point()
    }
    require_numbers(used, f'folder {path}')
    return model


def _from_hub(source: str, num_classes: int) -> VisionTransformer:
    name = source.removeprefix(_HUB)
    looks_like_a_file = name.endswith(_WEIGHT_FILES) and name == source
    if not _HUB_ID.fullmatch(name) or looks_like_a_file:
        raise MissingFileError(
            f'{source!r} is not a file, a folder or an id of the Hugging Face Hub '
            "('name/model')"
        )
    return _by_timm(_HUB + name, f'{name!r} on the Hugging Face Hub', num_classes)


def _by_timm(name: str, what: str, num_classes: int) -> VisionTransformer:
    try:
        model = timm.create_model(name, pretrained=True, num_classes=num_classes)
    except MemoryError:
        raise
    # timm lets the errors of JSON, safetensors, torch and the hub's client through
    except Exception as error:
        reason = f'{type(error).__name__}: {first_line(error)}'
        raise FileError(f'{what} cannot be loaded by timm ({reason})') from error
    if not isinstance(model, VisionTransformer):
        raise UserError(f'{what} is a {type(model).__name__}, not a VisionTransformer')
    require_numbers(model.state_dict(), what)
    return model


def _resize(model: VisionTransformer, img_size: int | tuple[int, int]) -> None:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    patch = model.patch_embed.patch_size
    if height % patch[0] or width % patch[1]:
        raise UserError(
            f'img_size={img_size} is not a multiple of patch_size={patch[0]}'
        )
    model.set_input_size(img_size=(height, width))
    model.pretrained_cfg = dict(model.pretrained_cfg, input_size=(3, height, width))
