"""Arguments that several commands share, and how ``--cfg-options`` are read."""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PARTNERS = {'[': ']', '(': ')'}
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


#: What is shared, by its first name, as ``add_argument`` takes it.
SHARED: dict[str, dict[str, Any]] = {
    'config': dict(help='config of the pre-training'),
    'checkpoint': dict(help="file with weights, or 'random'"),
    'images': dict(nargs='+', help='image files, or folders of them'),
    '--config': dict(help='for a checkpoint that does not carry it'),
    '--device': dict(default='auto', help='auto, cpu, cuda:0, ...'),
    '--img-size': dict(type=int, help='another size of images'),
    '--launcher': dict(choices=('none', 'pytorch', 'slurm', 'mpi'), default='none'),
    '--local-rank': dict(type=int, default=0, help='set by older launchers'),
    '--no-pin-memory': dict(
        action='store_true', help='no pinned memory in dataloaders'
    ),
    '--out': dict(type=Path, help='write the report as JSON here'),
}


def add_shared(parser: ArgumentParser, *names: str) -> None:
    """Add arguments of :data:`SHARED`, in this order."""
    for name in names:
        old = ['--local_rank'] if name == '--local-rank' else []
        parser.add_argument(name, *old, **SHARED[name])


def add_export(parser: ArgumentParser, target: str, what: str) -> None:
    """Add ``[CONFIG] CHECKPOINT TARGET``; the word ``none`` also stands for no config.

    Args:
        parser: The command line.
        target: Name of what is written.
        what: Its help.
    """
    parser.add_argument(
        'config',
        nargs='?',
        type=lambda word: None if word == 'none' else word,
        help="config of the pre-training; default, or 'none': the checkpoint's own",
    )
    parser.add_argument('checkpoint', help='a checkpoint of pre-training')
    parser.add_argument(target, help=what)


def add_config_options(parser: ArgumentParser, examples: str = '') -> None:
    """Add ``--cfg-options`` and ``--data-root``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        metavar='KEY=VALUE',
        help=f'override settings of the config{examples}; lists are a,b or "[a,b]"; a '
        'value in quotes is text: \'KEY="a,b"\'',
    )
    parser.add_argument(
        '--data-root',
        metavar='FOLDER',
        help="the folder of the images, in all of the config's data sets",
    )


class OptionAction(Action):
    """Reads words ``key=value`` into a dictionary; see :func:`read_value`."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or []:
            key, equals, text = pair.partition('=')
            if not equals or not key.strip('. '):
                parser.error(f'{option_string} takes key=value, not {pair!r}')
            for other in options:
                if f'{other}.'.startswith(f'{key}.') or key.startswith(f'{other}.'):
                    parser.error(
                        f'{option_string} sets {other}={options[other]} and {pair}: '
                        'leave one of them out'
                    )
            try:
                options[key] = read_value(text)
            except ValueError as error:
                parser.error(f'{option_string} {pair}: {error}')
        setattr(namespace, self.dest, options)


def read_value(text: str) -> Any:
    """What a value on the command line stands for.

    A text in quotes is that text. ``1``, ``1e-3``, ``true``, ``None`` are what they
    are in Python, ``a,b`` and ``[a,b]`` lists and ``(a,b)`` a tuple, also nested.
    Everything else is text, with its blanks.

    Raises:
        ValueError: for brackets that do not match.
    """
    stripped = text.strip()
    if _QUOTED.fullmatch(stripped):
        return stripped[1:-1]
    bracketed = stripped[1:] and stripped[-1] == _PARTNERS.get(stripped[0])
    parts = _parts(stripped) if bracketed or ',' in stripped else [stripped]
    if len(parts) > 1:
        return [read_value(part.strip()) for part in parts]
    if bracketed:
        parts = _parts(stripped[1:-1])
        if not parts[-1].strip():  # [] and (1,)
            parts.pop()
        values = [read_value(part.strip()) for part in parts]
        return tuple(values) if stripped[0] == '(' else values
    value = _scalar(stripped)
    return text if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    """The text between commas that stand in no quotes and no brackets."""
    parts, open_, place = [''], [], 0
    while place < len(text):
        quoted = _QUOTED.match(text, place) if not parts[-1].strip() or open_ else None
        piece = quoted.group() if quoted else text[place]
        place += len(piece)
        if piece in _PARTNERS:
            open_.append(_PARTNERS[piece])
        elif piece in _PARTNERS.values() and (not open_ or open_.pop() != piece):
            open_ = ['']
            break
        if piece == ',' and not open_:
            parts.append('')
        else:
            parts[-1] += piece
    if open_:
        raise ValueError(
            'brackets do not match; a text that has commas or brackets goes in quotes: '
            f"""'KEY="{text}"'"""
        )
    return parts


def _scalar(text: str) -> Any:
    """A number, a truth value or None where the text is one; else the text."""
    words = {'true': True, 'false': False}
    if text == 'None' or text.lower() in words:
        return words.get(text.lower())
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
