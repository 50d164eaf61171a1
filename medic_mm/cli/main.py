"""The program ``medic-mm`` and the scripts of ``tools/``: one entry here for each.

A command is a module of this folder. Its docstring is the help text,
``add_arguments(parser)`` names what it takes, and ``run(args)`` does it and returns the
exit status, or None for 0. ``prepare(words)``, where there is one, goes before both and
returns the words to read. A module is imported when it is called: ``medic-mm --help``
is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medic_mm.errors import UserError
from medic_mm.version import __version__


class Command(NamedTuple):
    """A command: its module in this folder, its script in ``tools/``, what it does."""

    module: str
    tool: str
    what: str


COMMANDS = {
    'train': Command('train', 'train.py', 'train a model'),
    'check': Command('train', 'train.py', 'name all that a training would lack'),
    'test': Command('test', 'test.py', 'test a checkpoint'),
    'knn': Command('knn', 'knn.py', 'k-NN of a pre-trained backbone'),
    'probe': Command('linear_probe', 'linear_probe.py', 'linear probe and k-NN'),
    'evaluate': Command('evaluate', 'evaluate.py', 'all benchmarks, in one table'),
    'convert': Command('convert', 'convert.py', 'change the layout of a checkpoint'),
    'visualize': Command('visualize', 'visualize.py', 'draw attention, masks, ...'),
    'report': Command('report', 'report.py', 'one HTML page of a run'),
    'export-hf': Command('export_hf', 'export_hf.py', 'a Hugging Face folder'),
    'export-onnx': Command('export_onnx', 'export_onnx.py', 'an ONNX file'),
    'features': Command('features', 'extract_features.py', 'features of image files'),
}
# their lines belong to the run's log; elsewhere warnings will do
_LOGGING = ('train', 'test')


def main(words: Sequence[str] | None = None) -> None:
    """The program ``medic-mm``."""
    lines = [f'  {name:<12} {command.what}' for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog='medic-mm',
        description='Masked distillation for the OpenMMLab stack.\n\n'
        + '\n'.join(['commands:', *lines])
        + '\n\nmedic-mm COMMAND --help shows the arguments of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument(
        'command', choices=COMMANDS, metavar='COMMAND', help='one of these'
    )
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, help='arguments of the command'
    )
    args = parser.parse_args(words)
    call(args.command, args.arguments, f'medic-mm {args.command}')


def call(
    name: str, words: Sequence[str] | None = None, program: str | None = None
) -> None:
    """Run a command of :data:`COMMANDS`; leaves by ``SystemExit`` where it fails.

    Args:
        name: The command.
        words: Its arguments. Default: those of this process.
        program: What was called, for the help. Default: the script in ``tools/``.
    """
    module = COMMANDS[name].module
    given = list(sys.argv[1:] if words is None else words)
    code = importlib.import_module(f'medic_mm.cli.{module}')
    if hasattr(code, 'prepare'):
        with sentences_for_users():
            given = code.prepare(given)
    parser = command_parser(name, program)
    if name == 'check':
        given.append('--check')
    # argparse cannot mix options and positional arguments of sub-commands
    mixed = module != 'visualize'
    args = parser.parse_intermixed_args(given) if mixed else parser.parse_args(given)
    if 'local_rank' in args:  # older launchers pass the rank as an argument
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    run = code.run
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        run = record(run)
    if module not in _LOGGING:
        from mmengine.logging import MMLogger

        # mmengine logs every weight that it draws
        MMLogger.get_instance(module, log_level='WARNING')
    with sentences_for_users():
        status = run(args)
    if status:
        raise SystemExit(status)


def command_parser(name: str, program: str | None = None) -> argparse.ArgumentParser:
    """The command line of a command, see :func:`call`."""
    command = COMMANDS[name]
    module = importlib.import_module(f'medic_mm.cli.{command.module}')
    shown = program or f'python tools/{command.tool}'
    parser = argparse.ArgumentParser(
        prog=program,
        description=module.__doc__.replace(f'medic-mm {name}', shown),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


@contextlib.contextmanager
def sentences_for_users() -> Iterator[None]:
    """Show a :class:`UserError` as its sentence, without traceback; exit with 1.

    Other errors keep their traceback, whose last line is their sentence. Where the
    construction of a component raised them, its place in the config is named.
    """
    from medic_mm.settings.building import naming_places

    try:
        with naming_places():
            yield
    except UserError as error:
        # The first process that ends makes torchrun stop the others, before they could
        # print; what it raised is the last thing that torchrun shows.
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            raise
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(1) from None


def root_folder() -> Path:
    """The folder of ``configs`` and ``tools``: the clone, or an installed copy."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent
    return clone if (clone / 'model-index.yml').is_file() else package / '.mim'
