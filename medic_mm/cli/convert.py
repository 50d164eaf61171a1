"""Convert a checkpoint between the layouts of mmpretrain, mmseg, timm and MAE.

    medic-mm convert SOURCE DEST --to timm
    medic-mm convert SOURCE DEST --to mmseg --img-size 512

The layout of SOURCE is found by itself: mmpretrain's, mmseg's, timm's, the official
MAE's, open_clip's visual tower, the released MEDiC, MaskDistill and TinyMIM, or Hugging
Face's ViT and ViTMAE. The ending of DEST decides its format: .safetensors or .pth. What
is left out is printed. docs/checkpoints.md has the table of layouts.
"""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medic_mm.checkpoints.conversion import LAYOUTS, TARGETS, convert_weights
from medic_mm.checkpoints.description import describe_run, read_description
from medic_mm.checkpoints.reading import (
    WEIGHT_KEYS,
    find_weights,
    read_checkpoint,
)
from medic_mm.checkpoints.saving import SUFFIXES, save_weights
from medic_mm.checkpoints.sizes import (
    GRID_KEY,
    Grid,
    find_grid,
    grid_text,
    positions_in,
    recorded_grid,
    resize_weights,
    resized_grid,
)
from medic_mm.errors import FileError, UserError

__all__ = ['LAYOUTS', 'TARGETS', 'FileConversion', 'convert_file']


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('source', help='checkpoint to convert')
    add('dest', help='file to write, .safetensors or .pth')
    add('--to', required=True, choices=TARGETS, help='layout wanted')
    add(
        '--from',
        dest='layout',
        default='auto',
        choices=('auto', *LAYOUTS),
        help='layout of SOURCE (default: found by its names)',
    )
    add('--img-size', type=int, metavar='N', help='resize position embeddings')
    add('--patch-size', type=int, metavar='N', help='resize the patch embedding')
    add(
        '--source-grid',
        type=int,
        nargs=2,
        metavar=('ROWS', 'COLUMNS'),
        help='patches that the positions in SOURCE are for, where it does not say '
        '(default: a square)',
    )


def run(args: Namespace) -> None:
    """Convert, and print what was written and what was left out."""
    print(convert_file(**vars(args)).text())


@dataclass(frozen=True)
class FileConversion:
    """What was written, and what was not.

    Attributes:
        path: The file written.
        source: Layout that the weights were in.
        target: Layout that they are in now.
        names: Names of the weights written.
        left_out: Names of weights that were not written, each with a reason.
        entries_left_out: Entries besides the weights that were not written (optimizer,
            logs).
        folded: LayerScales that are now part of their projections, as in mmpretrain.
        description: What is known of the run: method, teacher, epoch and the like.
        notes: What had to be assumed.
    """

    path: Path
    source: str
    target: str
    names: tuple[str, ...]
    left_out: dict[str, str]
    entries_left_out: tuple[str, ...]
    folded: tuple[str, ...]
    description: dict[str, str]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """A report for the terminal; every weight left out is named."""
        lines = [
            f'{self.path}: {len(self.names)} weights, '
            f'from the layout {self.source} to {self.target}'
        ]
        known = {k: v for k, v in self.description.items() if k != 'config'}
        lines += [f'{key}: {value}' for key, value in known.items()]
        if self.folded:
            lines.append(
                f'folded into their projections: {len(self.folded)} LayerScales'
            )
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines.append(f'left out, {reason}: {", ".join(names)}')
        if entries := ', '.join(self.entries_left_out):
            lines.append(f'left out besides the weights: {entries}')
        return '\n  '.join([*lines, *(f'note: {note}' for note in self.notes)])


def convert_file(
    source: str | os.PathLike,
    dest: str | os.PathLike,
    to: str,
    layout: str = 'auto',
    img_size: int | None = None,
    patch_size: int | None = None,
    source_grid: Sequence[int] | None = None,
) -> FileConversion:
    """Convert a checkpoint.

    The tensors stay in the file until they are written, so the memory needed is about
    the size of the weights. ``dest`` is written as a whole or not at all.

    Args:
        source: A file of weights: ``.safetensors``, or one of ``torch.save`` without
            pickled code.
        dest: A ``.safetensors`` or ``.pth`` file to write. mmpretrain and mmseg read
            ``.pth`` in an ``init_cfg``.
        to: Layout wanted, one of :data:`TARGETS`.
        layout: Layout of ``source``; ``'auto'`` finds it.
        img_size: Pixels a side to resize position embeddings for; None keeps them.
        patch_size: Pixels a side to resize the patch embedding to; None keeps it.
        source_grid: Rows and columns of patches that the positions in ``source`` are
            for. Default: those that its config or description says, else a square,
            which the report and the log then say.

    Raises:
        UserError: one sentence, where the file is missing, torn, carries code, is of
            no known layout, a teacher's, or without a whole encoder of finite numbers;
            or where sizes do not divide.
    """
    source, dest = Path(source), Path(dest)
    _check_paths(source, dest)
    try:
        content = read_checkpoint(source, mmap=True)
        weights = find_weights(source, content)
        done = convert_weights(weights, layout, to, whole=f'checkpoint {source}')
        known = recorded_grid(source, content)
        resizes = img_size is not None or patch_size is not None
        grid, note = _grid(done.weights, source, source_grid, known, resizes)
        resized, spare = resize_weights(done.weights, img_size, patch_size, grid)
    except (OSError, RuntimeError, ValueError) as error:
        sentence = ' '.join(str(error).split())
        if str(source) not in sentence:
            sentence = f'checkpoint {source}: {sentence}'
        raise UserError(sentence) from error
    meta = content.get('meta')
    known_run = read_description(source) or describe_run(content)
    description = {**known_run, 'layout': to}
    if done.folded:
        description['layer_scale'] = 'folded into the projections'
    for name, size in (('img_size', img_size), ('patch_size', patch_size)):
        if size is not None:
            description[name] = str(size)
    description.pop(GRID_KEY, None)
    if grid and not note:
        new_grid = resized_grid(done.weights, grid, img_size, patch_size)
        description[GRID_KEY] = grid_text(new_grid)
    if note:
        logging.getLogger(__name__).warning(note)
    plain = _plain(meta) if isinstance(meta, Mapping) else {}
    save_weights(
        resized, dest, description, plain, key='model' if to == 'mae' else 'state_dict'
    )
    return FileConversion(
        path=dest,
        source=done.source,
        target=to,
        names=tuple(resized),
        left_out={**done.left_out, **spare},
        entries_left_out=_other_entries(content, weights),
        folded=done.folded,
        description=description,
        notes=(note,) if note else (),
    )


def _check_paths(source: Path, dest: Path) -> None:
    if dest.suffix not in SUFFIXES:
        raise UserError(
            f'DEST={str(dest)!r}: the ending decides the format, so use one of '
            f'{", ".join(SUFFIXES)}'
        )
    if dest.exists() and source.exists() and dest.samefile(source):
        raise UserError(f'DEST={str(dest)!r} is SOURCE itself: name another file')


def _grid(
    weights: Mapping[str, Tensor],
    source: Path,
    given: Sequence[int] | None,
    recorded: Grid | None,
    resizes: bool,
) -> tuple[Grid | None, str]:
    """Rows and columns of the positions, and what was assumed or is not known."""
    name = positions_in(weights)
    if name is None:
        if given is not None:
            raise UserError(
                f'source_grid={tuple(given)}: checkpoint {source} has no position '
                'embeddings, so leave it out'
            )
        return None, ''
    count = weights[name].shape[1] - 1
    try:
        return find_grid(count, name, f'checkpoint {source}', given, recorded)
    except FileError as error:  # of no concern where they are only carried over
        if resizes:
            raise
        return None, str(error)


def _other_entries(
    content: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Entries of a checkpoint besides its weights and its ``meta``."""
    found = next((k for k in WEIGHT_KEYS if isinstance(content.get(k), dict)), None)
    if found is None:
        return tuple(str(key) for key in content if key not in weights)
    entries = [key for key in content if key not in (found, 'meta')]
    values = [f'{found}.{key}' for key in content[found] if key not in weights]
    return tuple(map(str, entries + values))


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``meta`` any ``torch.load`` reads again; nested tensors and more go."""
    kinds = (str, int, float, bool)
    return {
        str(key): value
        for key, value in meta.items()
        if value is None or isinstance(value, kinds) or key == 'dataset_meta'
    }
