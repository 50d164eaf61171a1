"""Draw what a pre-trained model makes of images.

    medic-mm visualize attention CONFIG CHECKPOINT IMAGES --out pictures

``attention`` draws where the class token looks, one map per head: the student's, and
the teacher's beside them; ``features`` colours patch tokens by their principal
components; ``masks`` draws every masking strategy, and ``evolution`` the clusters and
masks of a training's epochs. ``reconstruction`` draws the pixels predicted for hidden
patches, ``segmentation`` the classes predicted by a segmentor, ``curves RUN [RUN ...]``
what runs have logged. docs/pictures.md shows them all. IMAGES are files or folders.
CHECKPOINT may be the word ``random``: the network before training, for comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from medic_mm.errors import UserError
from medic_mm.pictures.attention_figures import INTERPOLATIONS
from medic_mm.pictures.commands import (
    Drawn,
    visualize_attention,
    visualize_curves,
    visualize_evolution,
    visualize_features,
    visualize_masks,
    visualize_reconstruction,
    visualize_segmentation,
)
from medic_mm.settings.arguments import add_config_options
from medic_mm.settings.run_config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command: a sub-command for each kind of picture."""
    commands = parser.add_subparsers(required=True, metavar='WHAT')
    add_attention(commands)
    add_masks(commands)
    add_evolution(commands)
    add_features(commands)
    add_reconstruction(commands)
    add_segmentation(commands)
    add_curves(commands)


def add_attention(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'attention', help='class-token attention, student against teacher'
    )
    add_model_and_images(parser)
    parser.add_argument('--block', type=int, help="the student's, from 1; default last")
    parser.add_argument(
        '--no-teacher',
        action='store_false',
        dest='with_teacher',
        help="leave out the teacher's maps",
    )
    parser.add_argument(
        '--interpolation',
        choices=INTERPOLATIONS,
        default='nearest',
        help='how maps are enlarged',
    )
    parser.add_argument(
        '--overlay', action='store_true', help='draw the maps over the image'
    )
    add_common(parser)
    parser.set_defaults(draw=visualize_attention)


def add_masks(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'masks', help='every masking strategy side by side, at one ratio'
    )
    parser.add_argument(
        'images',
        nargs='+',
        metavar='[CONFIG] IMAGES',
        help='config of the pre-training (a .py file, first; without it no evolved '
        'masks), then image files or folders of them',
    )
    add_limit(parser)
    parser.add_argument(
        '--clusters',
        type=int,
        help='of evolved masks; default 20, fewer on small grids',
    )
    parser.add_argument(
        '--alpha', type=float, default=1.0, help='weight of clusters against noise'
    )
    add_masking(parser)
    parser.add_argument(
        '--no-teacher',
        action='store_false',
        dest='with_teacher',
        help='leave the evolved masks out',
    )
    add_common(parser)
    parser.set_defaults(draw=draw_masks)


def draw_masks(
    images: list[str], cfg_options: dict | None, data_root: str | None, **options: Any
) -> Drawn:
    config = None
    if images[0].endswith('.py'):
        path, *images = images
        config = load_config(path, cfg_options, data_root)
        if not images:
            raise UserError(f'no images: name files or folders after {path}')
    elif cfg_options or data_root:
        given = '--cfg-options' if cfg_options else '--data-root'
        raise UserError(f'{given} needs a config: name its .py file first')
    return visualize_masks(config, images, **options)


def add_evolution(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'evolution', help='EM against hierarchical clusters over the epochs'
    )
    parser.add_argument('config', help='config of the pre-training')
    add_images(parser)
    parser.add_argument(
        '--epochs', type=int, help="length of the training; default the config's"
    )
    parser.add_argument(
        '--at', type=int, nargs='+', metavar='EPOCH', help='epochs to show, from 0'
    )
    parser.add_argument(
        '--gamma', type=float, default=0.2, help='of the schedule of alpha'
    )
    parser.add_argument(
        '--clusters',
        type=int,
        nargs=2,
        default=(40, 10),
        metavar=('FIRST', 'LAST'),
        help='in the first epoch and in the last',
    )
    add_masking(parser)
    add_common(parser)
    parser.set_defaults(draw=visualize_evolution)


def add_features(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'features', help='patch tokens as colours, student against teacher'
    )
    add_model_and_images(parser)
    parser.add_argument('--block', type=int, help="the student's, from 1; default last")
    parser.add_argument(
        '--no-teacher',
        action='store_false',
        dest='with_teacher',
        help="leave out the teacher's tokens",
    )
    add_common(parser)
    parser.set_defaults(draw=visualize_features)


def add_reconstruction(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'reconstruction', help='hidden patches and the pixels predicted for them'
    )
    add_model_and_images(parser, required=False)
    parser.add_argument(
        '--ratio', type=float, help="share of patches to hide; default the config's"
    )
    parser.add_argument('--seed', type=int, default=0, help='of the masks')
    add_common(parser)
    parser.set_defaults(draw=visualize_reconstruction)


def add_segmentation(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'segmentation', help='image, ground truth and predicted classes'
    )
    add_model_and_images(parser, required=False)
    parser.add_argument(
        '--annotations', type=Path, help='folder of the ground truth of IMAGES'
    )
    add_common(parser)
    parser.set_defaults(draw=visualize_segmentation, limit=4)


def add_curves(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'curves', help='losses, k-NN, learning rate and speed of training runs'
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='RUN', help='work folder of a run'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='file, or folder for curves.png'
    )
    parser.add_argument('--labels', nargs='+', help='a name for each run')
    parser.set_defaults(draw=visualize_curves)


def add_model_and_images(
    parser: argparse.ArgumentParser, required: bool = True
) -> None:
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help="file with weights, or 'random'")
    default = '' if required else "; default the config's test data"
    parser.add_argument(
        'images',
        nargs='+' if required else '*',
        help=f'image files, or folders of them{default}',
    )
    add_limit(parser)


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    add_limit(parser)


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--limit', type=int, default=8, help='take at most so many images'
    )


def add_masking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--ratio', type=float, help="share of patches to hide; default the config's"
    )
    parser.add_argument(
        '--spatial-bias', type=float, default=1.0, help='of the clusters with a bias'
    )
    parser.add_argument('--seed', type=int, default=0, help='of all masks')


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for the pictures'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda:0, ...')
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Draw, and print what was written."""
    options = vars(args)
    # the options of a command have the names that its function gives them
    draw = options.pop('draw')
    if 'config' in options:
        changes = options.pop('cfg_options'), options.pop('data_root')
        options['config'] = load_config(options['config'], *changes)
    drawn: Drawn = draw(**options)
    for note in drawn.notes:
        print(note)
    for file in drawn.files:
        print(f'wrote {file}')
