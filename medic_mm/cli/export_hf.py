"""Make a Hugging Face folder from a checkpoint; timm loads it by its name.

    medic-mm export-hf CHECKPOINT FOLDER --licence apache-2.0
    medic-mm export-hf CONFIG CHECKPOINT FOLDER --push NAME/MODEL

CONFIG is that of the pre-training; without it, or for ``none``, it is the one that the
checkpoint carries. Nothing is uploaded without --push.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from medic_mm.checkpoints.strict import load_strictly
from medic_mm.errors import UserError
from medic_mm.export.folder import (
    FILES,
    check_folder,
    check_login,
    describe_upload,
    upload,
    whole_folder,
    write_folder,
)
from medic_mm.export.load import build_vit
from medic_mm.export.model_card import write_model_card
from medic_mm.export.source import PREFIX, Source, describe_source, read_source
from medic_mm.models.vit.architecture import Architecture
from medic_mm.registry import MODELS
from medic_mm.settings.arguments import add_export

#: Largest difference of a token that an export may have, in fp32.
TOLERANCE = 1e-4


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add_export(parser, 'folder', 'new folder to write to')
    add = parser.add_argument
    add(
        '--licence',
        default='unknown',
        help="of the weights, for the model card: an identifier of the Hub's",
    )
    add(
        '--plain-heads',
        action='store_true',
        help='for a last block with other heads (TinyMIM): give it those of the rest',
    )
    add('--push', metavar='NAME/MODEL', help='upload to the Hub')
    add('--private', action='store_true', help='a new repository is private')


def run(args: Namespace) -> None:
    """Export, print what was written, upload it where that is asked for."""
    exported = export_hf(
        args.checkpoint,
        args.folder,
        config=args.config,
        licence=args.licence,
        repository=args.push,
        plain_heads=args.plain_heads,
    )
    for note in exported.notes:
        print(note)
    for file in exported.files:
        print(f'wrote {file}')
    if exported.difference is not None:
        print(f'largest difference of a token: {exported.difference:.2g}')
    if args.push:
        print(f'done: {push(exported, args.push, args.private)}')


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: The files of the folder.
        difference: Largest difference between the tokens of the checkpoint's own
            network and those of timm's from the folder; None where they differ by
            intention.
        notes: Sentences for the user.
    """

    files: list[Path]
    difference: float | None
    notes: list[str]


def export_hf(
    checkpoint: str | Path,
    folder: str | Path,
    config: str | Path | None = None,
    licence: str = 'unknown',
    repository: str | None = None,
    plain_heads: bool = False,
) -> Exported:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``, and check them.

    timm loads the folder again, and its tokens of two random images are compared with
    those of the checkpoint's own network.

    Args:
        checkpoint: A checkpoint of pre-training.
        folder: A new folder, or one of an earlier export.
        config: Its config. Default: the one in the checkpoint.
        licence: The weights' licence for the model card, by the Hub's identifier.
        repository: Id on the Hub for the card's example.
        plain_heads: Export a network whose last block has another number of heads
            (TinyMIM's adaptive block) with the number of the other blocks, as TinyMIM
            fine-tunes it. Its tokens are not those of pre-training.

    Raises:
        UserError: for a checkpoint that cannot be exported, or a folder with other
            files in it; one sentence says what would be right.
    """
    folder = Path(folder)
    try:
        check_folder(folder)
        source = read_source(checkpoint, config)
        architecture, preprocessing = describe_source(source)
        architecture, remarks = _one_number_of_heads(architecture, plain_heads)
        card = write_model_card(
            source, architecture, preprocessing, licence, repository, remarks
        )
        # strict: weights that do not fit the config are found out here
        weights = build_vit(source, architecture, preprocessing).state_dict()
        with whole_folder(folder) as drafts:
            write_folder(drafts, weights, architecture, preprocessing, card)
            difference = None if remarks else _difference(source, drafts)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(' '.join(str(error).split())) from error
    files = [folder / name for name in FILES]
    return Exported(files, difference, [*preprocessing.notes, *remarks])


def push(exported: Exported, repository: str, private: bool) -> str:
    """Upload an export after printing what and how large; the address.

    Raises:
        UserError: where nobody is logged in, or the Hub refuses.
    """
    try:
        print(f'logged in as {check_login(repository)}')
        print(describe_upload(exported.files, repository, private))
        folder = exported.files[0].parent
        return upload(folder, exported.files, repository, private)
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error


def _one_number_of_heads(
    architecture: Architecture, plain_heads: bool
) -> tuple[Architecture, list[str]]:
    """An architecture that timm's config can say, and a sentence on what it costs."""
    heads = architecture.last_block_heads
    if heads is None:
        return architecture, []
    common = architecture.arguments['num_heads']
    if not plain_heads:
        raise ValueError(
            f'backbone.block_heads={heads} gives the last block other heads than the '
            f"rest ({common}), which timm's config cannot say: --plain-heads exports "
            'it as fine-tuning takes it (tokens then differ), and medic_mm.load_model '
            'reads the checkpoint itself exactly'
        )
    remark = (
        f'The last block was pre-trained with {heads} heads and has {common} here, as '
        'fine-tuning takes it: tokens differ from those of pre-training.'
    )
    return replace(architecture, last_block_heads=None), [remark]


@torch.no_grad()
def _difference(source: Source, folder: Path) -> float:
    """Largest difference of a token between the folder's network and the source's."""
    ours = _source_network(source)
    try:
        theirs = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    except (RuntimeError, KeyError) as error:
        raise RuntimeError(
            f'timm cannot load the export of checkpoint {source.path}: {error}'
        ) from error
    size = theirs.pretrained_cfg['input_size']
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    pooled = theirs.global_pool == 'avg'
    found = theirs(images) if pooled else theirs.forward_features(images)
    difference = (found - _outputs(ours, images)).abs().max().item()
    if not difference < TOLERANCE:  # also for NaN
        raise RuntimeError(
            f'nothing was written: in timm, the tokens of checkpoint {source.path} '
            f'differ by {difference:.2g} from those of its own network'
        )
    return difference


def _source_network(source: Source) -> nn.Module:
    init_default_scope(source.config.get('default_scope') or 'mmpretrain')
    backbone = {k: v for k, v in source.backbone.items() if k != 'init_cfg'}
    if backbone.get('out_type', 'raw') != 'avg_featmap':
        backbone['out_type'] = 'raw'
    network = MODELS.build(backbone)
    weights = {k.removeprefix(PREFIX): v for k, v in source.weights.items()}
    load_strictly(network, weights, f'checkpoint {source.path}')
    network.eval()  # that of mmengine returns nothing
    return network


def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    masks = type(network).__name__ == 'MAEViT'
    return network(images, mask=None)[-1] if masks else network(images)[-1]
