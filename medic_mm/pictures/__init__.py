"""Pictures of what the methods do: a file holds all of one, this one lists them.

A picture is a function that :func:`register_picture` makes a sub-command of
``tools/visualize.py``; a user's own one is made in the same way, in their own module.
"""

from __future__ import annotations

import importlib
import pkgutil
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medic_mm.errors import UserError
from medic_mm.settings.arguments import add_config_options

Draw = TypeVar('Draw', bound='Callable[..., Drawn]')


@dataclass(frozen=True)
class Drawn:
    """What was written, and what there is to say about it.

    Attributes:
        files: The pictures.
        notes: Sentences for the user, such as why the teacher is left out.
    """

    files: list[Path]
    notes: list[str]


@dataclass(frozen=True)
class Picture:
    """A sub-command of ``tools/visualize.py``.

    Attributes:
        name: The sub-command.
        help: One line for ``--help``.
        add_arguments: Adds the arguments to a parser. An option that is not given is
            not handed on, so the defaults are those of ``draw``.
        draw: Is called with the arguments by their names. ``config`` arrives as a
            ``Config``, with ``--cfg-options`` and ``--data-root`` merged.
    """

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    draw: Callable[..., Drawn]


#: All pictures by name: complete after :func:`load_pictures`.
PICTURES: dict[str, Picture] = {}


def register_picture(
    name: str, help: str, add_arguments: Callable[[ArgumentParser], None]
) -> Callable[[Draw], Draw]:
    """Make the decorated function a sub-command; see :class:`Picture`.

    Raises:
        UserError: for a name that another picture has.
    """

    def register(draw: Draw) -> Draw:
        if name in PICTURES:
            raise UserError(
                f'a picture called {name!r} exists: give yours another name'
            )
        PICTURES[name] = Picture(name, help, add_arguments, draw)
        return draw

    return register


def load_pictures() -> dict[str, Picture]:
    """All pictures of this package, and those of modules that were imported before."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f'{__name__}.{module.name}')
    return PICTURES


def add_model(parser: ArgumentParser) -> None:
    """Add CONFIG and CHECKPOINT."""
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help="file with weights, or 'random'")


def add_images(
    parser: ArgumentParser,
    metavar: str = 'IMAGES',
    help: str = 'image files, or folders of them',
    nargs: str = '+',
) -> None:
    """Add IMAGES and ``--limit``."""
    # without a default, words that are not given are not handed on
    none = {'default': []} if nargs == '*' else {}
    parser.add_argument('images', nargs=nargs, metavar=metavar, help=help, **none)
    parser.add_argument('--limit', type=int, help='take at most so many images')


def add_no_teacher(parser: ArgumentParser, words: str) -> None:
    """Add ``--no-teacher``."""
    parser.add_argument(
        '--no-teacher', action='store_false', dest='with_teacher', help=words
    )


def add_output(parser: ArgumentParser) -> None:
    """Add ``--out``, ``--device`` and what changes the config."""
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for the pictures'
    )
    parser.add_argument('--device', help='auto (the default), cpu, cuda:0, ...')
    add_config_options(parser)
