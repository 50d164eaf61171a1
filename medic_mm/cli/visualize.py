"""Draw what a pre-trained model makes of images.

    medic-mm visualize attention CONFIG CHECKPOINT IMAGES --out pictures

docs/pictures.md shows all pictures; ``medic-mm visualize WHAT --help`` names the
arguments of one. IMAGES are files or folders. CHECKPOINT may be the word ``random``:
the network before training, for comparison.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.pictures import PICTURES, Picture, load_pictures
from medic_mm.settings.run_config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command; those of a picture are its own."""
    pictures = load_pictures().values()
    lines = [f'  {picture.name:<15} {picture.help}' for picture in pictures]
    parser.epilog = '\n'.join(['pictures:', *lines])
    parser.add_argument(
        '--import',
        action='append',
        default=[],
        dest='modules',
        metavar='MODULE',
        help='module with pictures of your own, before WHAT; those that custom_imports '
        'of the config names are found without',
    )
    parser.add_argument('what', metavar='WHAT', help='one of the pictures below')
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, help='arguments of the picture'
    )
    parser.set_defaults(program=parser.prog)


def run(args: argparse.Namespace) -> None:
    """Draw, and print what was written."""
    picture = find_picture(args.what, args.modules, args.arguments)
    parser = picture_parser(picture, args.program)
    options = vars(parser.parse_args(args.arguments))
    # the options of a picture have the names that its function gives them
    if 'config' in options:
        changes = (options.pop(name, None) for name in ('cfg_options', 'data_root'))
        options['config'] = load_config(options['config'], *changes)
    drawn = picture.draw(**options)
    for note in drawn.notes:
        print(note)
    for file in drawn.files:
        print(f'wrote {file}')


def find_picture(
    what: str, modules: Sequence[str] = (), words: Sequence[str] = ()
) -> Picture:
    """The picture called ``what``, of this package or of modules of the user.

    Args:
        what: Its name.
        modules: Modules to import before.
        words: Arguments; where no other picture has the name, a config among them is
            read, for its ``custom_imports``.

    Raises:
        UserError: where there is none, or a module cannot be imported.
    """
    load_pictures()
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(
                f'--import {module}: {error}; the folder that it is in must be on '
                'PYTHONPATH'
            ) from error
    configs = [w for w in words if w.endswith('.py') and Path(w).is_file()]
    if what not in PICTURES and configs:
        Config.fromfile(configs[0])
    if what not in PICTURES:
        raise UserError(
            f'there is no picture {what!r}: use {", ".join(PICTURES)}, or name the '
            'module of your own with --import MODULE'
        )
    return PICTURES[what]


def picture_parser(picture: Picture, program: str) -> argparse.ArgumentParser:
    """The command line of a picture; what is not given is not in its result."""
    parser = argparse.ArgumentParser(
        prog=f'{program} {picture.name}',
        description=picture.draw.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    picture.add_arguments(parser)
    return parser
