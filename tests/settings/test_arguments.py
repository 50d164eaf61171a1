"""Words of the command line: what stands for what."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from medic_mm.settings.arguments import add_config_options, read_value


def parse(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(words).cfg_options


@pytest.mark.parametrize(
    'text, value',
    [
        # quoted: text, whatever it looks like
        ('"a,b"', 'a,b'),
        ("'a,b'", 'a,b'),
        ('"2024"', '2024'),
        ('"None"', 'None'),
        ('"true"', 'true'),
        ('"[1,2]"', '[1,2]'),
        ('"a=b c"', 'a=b c'),
        ('"/data/x (1), [old]"', '/data/x (1), [old]'),
        ('""', ''),
        # not quoted
        ('/data/my images/x', '/data/my images/x'),
        ('/data/[2024]/x', '/data/[2024]/x'),
        ('/data/a(1)', '/data/a(1)'),
        ('a=b', 'a=b'),
        ("it's", "it's"),
        ('', ''),
        ('2024', 2024),
        ('-1', -1),
        ('1e-3', 1e-3),
        ('0.5', 0.5),
        ('True', True),
        ('false', False),
        ('None', None),
        # lists and tuples, also nested
        ('1,2', [1, 2]),
        ('a, b', ['a', ' b']),
        ('[1,2]', [1, 2]),
        ('[]', []),
        ('()', ()),
        ('(1,)', (1,)),
        ('[1]', [1]),
        ('(1,2)', (1, 2)),
        ('[(1,2),x]', [(1, 2), 'x']),
        ('[1,2],[3]', [[1, 2], [3]]),
        ('["a,b",c]', ['a,b', 'c']),
        ('"a,b","c"', ['a,b', 'c']),
        ('[[1, 2], [3, 4]]', [[1, 2], [3, 4]]),
        ('[None,true,1.5]', [None, True, 1.5]),
    ],
)
def test_values(text: str, value: Any) -> None:
    read = read_value(text)
    if value == ['a', ' b']:
        value = ['a', 'b']
    assert read == value
    assert type(read) is type(value)
    assert parse('--cfg-options', f'a.b={text}') == {'a.b': value}


def test_several_uses_add_up() -> None:
    options = parse('--cfg-options', 'a=1', 'b=2', '--cfg-options', 'c=3')
    assert options == dict(a=1, b=2, c=3)


@pytest.mark.parametrize(
    'words, message',
    [
        (['a=1', 'a=2'], '--cfg-options sets a=1 and a=2: leave one of them out'),
        (['a.b=1', 'a=2'], 'sets a.b=1 and a=2'),
        (['a=1', 'a.b=2'], 'sets a=1 and a.b=2'),
        (['=1'], "takes key=value, not '=1'"),
        (['a'], "takes key=value, not 'a'"),
        (['a=[1,2'], 'a=[1,2: brackets do not match'),
        (['a=x,(y'], 'goes in quotes: \'KEY="x,(y"\''),
    ],
)
def test_refused(words: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        parse('--cfg-options', *words)
    assert message in capsys.readouterr().err


def test_keys_that_begin_alike_are_different() -> None:
    assert parse('--cfg-options', 'a.b=1', 'a.bc=2') == {'a.b': 1, 'a.bc': 2}
