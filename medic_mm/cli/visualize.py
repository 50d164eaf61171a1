"""Draw what a pre-trained model makes of images.

    medic-mm visualize attention CONFIG CHECKPOINT IMAGES --out pictures

``--help`` after the name of a picture shows its arguments, and docs/pictures.md the
pictures. IMAGES are files or folders. CHECKPOINT may be the word ``random``: the
network before training, for comparison. Pictures of your own are found where
``custom_imports`` of the config or ``--import MODULE`` names their module
(docs/extending.md).
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medic_mm.errors import UserError
from medic_mm.pictures import PICTURES, load_pictures
from medic_mm.settings.run_config import load_config

_IMPORT: dict[str, Any] = dict(
    action='append', default=[], metavar='MODULE', help='with pictures of your own'
)


def prepare(words: Sequence[str]) -> list[str]:
    """Import the modules of the user, before the arguments of their pictures are read.

    A config is read for its ``custom_imports`` where a picture is not one of ours.

    Returns:
        The words without ``--import``.

    Raises:
        UserError: for a module that cannot be imported.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--import', dest='modules', **_IMPORT)
    known, rest = parser.parse_known_args(list(words))
    for module in known.modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(
                f'--import {module}: {error}; the folder of a module must be on '
                'PYTHONPATH'
            ) from error
    configs = [word for word in rest if word.endswith('.py') and Path(word).is_file()]
    if configs and rest[0] not in load_pictures():
        Config.fromfile(configs[0])
    return rest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command: a sub-command for each picture."""
    parser.add_argument('--import', **_IMPORT)
    commands = parser.add_subparsers(required=True, metavar='WHAT')
    load_pictures()
    for name, picture in PICTURES.items():
        # what is not given is not handed on: the defaults are those of the function
        part = commands.add_parser(
            name,
            help=picture.help,
            description=picture.help,
            argument_default=argparse.SUPPRESS,
        )
        picture.add_arguments(part)
        part.set_defaults(draw=picture.draw)


def run(args: argparse.Namespace) -> None:
    """Draw, and print what was written."""
    options = vars(args)
    draw = options.pop('draw')
    options.pop('import')
    if 'config' in options:
        changes = (options.pop(name, None) for name in ('cfg_options', 'data_root'))
        options['config'] = load_config(options['config'], *changes)
    drawn = draw(**options)
    for note in drawn.notes:
        print(note)
    for file in drawn.files:
        print(f'wrote {file}')
