"""Draw what a pre-trained model makes of images.

    python tools/visualize.py attention CONFIG CHECKPOINT IMAGES --out pictures

``attention`` draws where the class token looks, one map per head: the student's, and
the teacher's beside them. IMAGES are files or folders. CHECKPOINT may be the word
``random``: the backbone before training, for comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

from medic_mm.apis import OptionAction, sentences_for_users
from medic_mm.apis.run_config import load_config
from medic_mm.apis.visualize import Drawn, visualize_attention
from medic_mm.visualization import INTERPOLATIONS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='WHAT')
    add_attention(commands)
    return parser.parse_args()


def add_attention(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'attention', help='class-token attention, student against teacher'
    )
    add_model_and_images(parser)
    parser.add_argument('--block', type=int, help="the student's, from 1; default last")
    parser.add_argument(
        '--no-teacher', action='store_true', help="leave out the teacher's maps"
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
    parser.set_defaults(run=run_attention)


def run_attention(args: argparse.Namespace) -> Drawn:
    return visualize_attention(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        args.images,
        args.out,
        block=args.block,
        with_teacher=not args.no_teacher,
        limit=args.limit,
        interpolation=args.interpolation,
        overlay=args.overlay,
        device=args.device,
    )


def add_model_and_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help="file with weights, or 'random'")
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    parser.add_argument(
        '--limit', type=int, default=8, help='take at most so many images'
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for the pictures'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda:0, ...')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )


def main() -> None:
    args = parse_args()
    # the hosts tell of every weight that they draw: warnings will do here
    MMLogger.get_instance('visualize', log_level='WARNING')
    with sentences_for_users():
        drawn = args.run(args)
    for note in drawn.notes:
        print(note)
    for file in drawn.files:
        print(f'wrote {file}')


if __name__ == '__main__':
    main()
