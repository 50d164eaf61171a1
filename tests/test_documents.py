"""What the documents name exists: commands, flags, configs, settings, components."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry

from medic_mm import registry
from medic_mm.cli.main import COMMANDS as COMMAND_TABLE
from medic_mm.cli.main import command_parser
from medic_mm.errors import UserError
from medic_mm.settings.run_config import load_config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('configs/**/*.md')]
)
SOURCES = sorted(
    path
    for folder in ('tools', 'benchmarks', '.ci', 'medic_mm/cli')
    for path in ROOT.glob(f'{folder}/**/*')
    if path.suffix in ('.py', '.sh')
)
# the script, the tool that gets its arguments, and which of its own come first
LAUNCHERS = {
    'dist_train.sh': ('train.py', 'CONFIG GPUS'),
    'dist_test.sh': ('test.py', 'CONFIG CHECKPOINT GPUS'),
    'slurm_train.sh': ('train.py', 'PARTITION JOB CONFIG WORK_DIR'),
    'evaluate.sh': ('evaluate.py', ''),
    'quickstart.sh': ('quickstart.py', ''),
}
# words that stand for a number
NUMBERS = ('N', 'S', 'GPUS', 'SECONDS', 'ROWS', 'COLUMNS')
COMMAND = re.compile(
    r'(?:(?:python|bash) ((?:tools|benchmarks)/\w+\.(?:py|sh))\b|'
    r'(?<![\w-])(medic-mm [a-z][a-z-]+))((?:\\\n|[^`\n#])*)'
)
ASSIGNMENT = re.compile(r'^\s*([A-Z]+)=(?:"([^"]*)"|(\S+))\s*(?:#.*)?$', re.M)
BLOCK = re.compile(r'```(\w*)\n(.*?)```', re.DOTALL)
# options of other programs
FOREIGN_FLAGS = {'--no-build-isolation', '--index-url', '--extra-index-url'}


class _Found(Exception):
    """Carries the parser of a tool."""


@cache
def parser_of(script: str) -> argparse.ArgumentParser | None:
    """The command line of a tool, benchmark or command; None if it has none."""
    program, _, command = script.partition(' ')
    names = {tool.tool: name for name, tool in COMMAND_TABLE.items()}
    name = command or names.get(program.removeprefix('tools/'))
    if name:
        assert name in COMMAND_TABLE, script
        return command_parser(name)
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(f'documented_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    # benchmarks share code
    sys.path.insert(0, str(path.parent))
    original = argparse.ArgumentParser.parse_args

    def found(self: argparse.ArgumentParser, *_: object) -> None:
        raise _Found(self)

    try:
        spec.loader.exec_module(module)
        if 'ArgumentParser' not in path.read_text():
            return None
        argparse.ArgumentParser.parse_args = found
        getattr(module, 'parse_args', module.main)()
    except _Found as caught:
        return caught.args[0]
    finally:
        argparse.ArgumentParser.parse_args = original
        sys.path.remove(str(path.parent))
    raise AssertionError(f'{script} builds a parser that was not found')


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Of the parser and of its sub-commands."""
    flags = set()
    for action in parser._actions:
        flags |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                flags |= flags_of(part)
    return flags


def commands(path: Path) -> Iterator[tuple[str, str]]:
    """(script, arguments) as written, with the variables of a block put in."""
    text = path.read_text()
    if path.suffix == '.md':
        blocks = [found[2] for found in BLOCK.finditer(text)]
        # a command inside a sentence may go on in the next line
        inline = re.findall(r'`((?:python|bash|medic-mm) [^`]+)`', BLOCK.sub('', text))
        texts = [*blocks, *(' '.join(code.split()) for code in inline)]
    else:
        texts = [text]
    variables: dict[str, str] = {}
    for block in texts:
        # in a docstring a backslash is written twice
        block = block.replace('\\\\\n', '\\\n')
        for name, *values in re.findall(ASSIGNMENT, block):
            variables[name] = filled(''.join(values), variables)
        for found in COMMAND.finditer(filled(block, variables)):
            words = ' '.join(found[3].replace('\\\n', ' ').split())
            yield found[1] or found[2], words


def filled(text: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        text = re.sub(rf'\$\{{?{name}\b\}}?', value, text)
    return text


COMMANDS = [
    pytest.param(path, script, arguments, id=f'{path.relative_to(ROOT)}-{number}')
    for path in [*DOCUMENTS, *SOURCES]
    for number, (script, arguments) in enumerate(commands(path))
]


def words_of(arguments: str) -> list[str]:
    """One way to fill in a usage: ``[--to a|b]`` becomes ``--to a``."""
    plain = re.sub(
        r'(?<!=)\[|(?<!=\[)\]|\.\.\.',
        ' ',
        re.sub(r'\[arguments of[^\]]*\]', ' ', arguments),
    )
    words = shlex.split(plain)
    words = [word.partition('|')[0] if '|' in word else word for word in words]
    return ['1' if word in NUMBERS else word for word in words]


@pytest.mark.parametrize(('path', 'script', 'arguments'), COMMANDS)
def test_commands_parse(
    path: Path, script: str, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.startswith('medic-mm ') or (ROOT / script).is_file(), script
    name = Path(script).name
    if name == 'run_tests.sh':
        return
    words = words_of(arguments)
    if name in LAUNCHERS:
        tool, own = LAUNCHERS[name]
        count = len(own.split())
        assert len(words) >= count or not words, f'{script} needs {own}'
        if not words and count:
            return  # named, not called
        place = dict(zip(own.split(), words, strict=False))
        words = [
            place[x] for x in own.split() if x in ('CONFIG', 'CHECKPOINT')
        ] + words[count:]
        script = f'tools/{tool}'
    parser = parser_of(script)
    if parser is None:
        assert not words
        return
    for word in words:
        if word.startswith('configs/') and word.endswith('.py'):
            assert (ROOT / word).is_file(), word

    def fail(self: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(f'{script} {" ".join(words)}: {message}')

    monkeypatch.setattr(argparse.ArgumentParser, 'error', fail)
    if path.suffix == '.md' or words:
        parser.parse_args(words)


def inline_code(path: Path) -> list[str]:
    return re.findall(r'`([^`\n]+)`', BLOCK.sub('', path.read_text()))


@cache
def all_flags() -> set[str]:
    scripts = [*ROOT.glob('tools/*.py'), *ROOT.glob('benchmarks/*.py')]
    parsers = [parser_of(str(path.relative_to(ROOT))) for path in scripts]
    flags = set().union(*(flags_of(parser) for parser in parsers if parser))
    own = re.findall(r'--[a-z-]+', (ROOT / 'tests' / 'sampling.py').read_text())
    return flags | set(own) | {'--faults', '--docs', '--newcomers'} | FOREIGN_FLAGS


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_flags_exist(path: Path) -> None:
    named = {
        flag
        for code in inline_code(path)
        for flag in re.findall(r'(?<![\w-])--[a-z][a-z-]+', code)
    }
    assert not named - all_flags()


def expanded(pattern: str) -> list[str]:
    """``a-{b,c}`` is ``a-b`` and ``a-c``."""
    parts = re.split(r'\{([^}]*)\}', pattern)
    choices = [part.split(',') if i % 2 else [part] for i, part in enumerate(parts)]
    return [''.join(choice) for choice in itertools.product(*choices)]


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_configs_and_files_exist(path: Path) -> None:
    """Names ending in ``.py`` or starting with a folder of the repository."""
    folders = [ROOT, path.parent, ROOT / 'tools', ROOT / 'benchmarks']
    folders += [*ROOT.glob('configs/*'), *ROOT.glob('configs/*/*')]
    folders = [folder for folder in folders if folder.is_dir()]
    missing = []
    for code in inline_code(path):
        file = re.fullmatch(
            r'((?:configs|tools|docs|tests|benchmarks|medic_mm)/[\w./*{},-]+|[\w*{},.-]+\.py)',
            code,
        )
        if file is None or '...' in code or code == 'medic_mm/.mim':
            continue
        if f'`{code}`:\n\n```python\n' in path.read_text():
            continue  # the document shows what the reader writes into it
        for pattern in expanded(code):
            if not any(any(folder.glob(pattern)) for folder in folders):
                missing.append(pattern)
    assert not missing


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
        if re.match(r'https?:', target):
            continue
        file, _, heading = target.partition('#')
        goal = (path.parent / file).resolve() if file else path
        assert goal.exists(), target
        if heading:
            assert heading in headings(goal), target


def headings(path: Path) -> set[str]:
    lines = re.findall(r'^#+ (.*)$', BLOCK.sub('', path.read_text()), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', line.lower()).replace(' ', '-') for line in lines}


def component(name: str) -> object | None:
    """A registered component, or something that can be imported."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for place in vars(registry).values():
            if isinstance(place, Registry):
                found = place.get(name)
                if found is not None:
                    return found
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module('.'.join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found
    return None


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_components_exist(path: Path) -> None:
    names = {
        name
        for code in inline_code(path)
        for name in re.findall(r'\bmedic_mm(?:\.\w+)+', code)
        if not name.endswith(('.py', '.sha256', '.NAME'))
    }
    assert not [name for name in sorted(names) if component(name) is None]


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_settings_of_components_exist(path: Path) -> None:
    """In each ``dict(type='X', key=...)`` of the examples and of the tables."""
    text = path.read_text()
    texts = [found[2] for found in BLOCK.finditer(text) if found[1] == 'python']
    own = {f'medic_mm.{name}' for name in re.findall(r'^class (\w+)', text, re.M)}
    texts += [code for code in inline_code(path) if 'dict(' in code]
    wrong = []
    for code in texts:
        try:
            tree = ast.parse(code.replace('...', 'None').strip())
        except SyntaxError:
            continue  # a part of a line
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'dict':
                wrong += wrong_settings(call, own)
    assert not wrong


def wrong_settings(call: ast.Call, own: set[str]) -> list[str]:
    """Settings that a component lacks; ``own`` are those that the document writes."""
    values = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    kind = values.pop('type', None)
    values.pop('_delete_', None)
    if not isinstance(getattr(kind, 'value', None), str) or kind.value in own:
        return []
    found = component(kind.value)
    if found is None and not kind.value.startswith('medic_mm.'):
        return []  # of a package that is not imported here
    if found is None:
        return [f'type={kind.value!r}']
    accepted: set[str] = set()
    for base in getattr(found, '__mro__', (found,)):
        try:
            parameters = inspect.signature(base).parameters.values()
        except (TypeError, ValueError):
            continue
        accepted |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    ours = getattr(found, '__module__', '').startswith('medic_mm')
    return [f'{kind.value}({key}=)' for key in values if ours and key not in accepted]


@cache
def identifiers() -> set[str]:
    """Every name in the code of the repository."""
    folders = ('medic_mm', 'configs', 'tools', 'benchmarks', 'tests')
    files = [file for folder in folders for file in ROOT.glob(f'{folder}/**/*.py')]
    return {name for file in files for name in re.findall(r'\w+', file.read_text())}


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_settings_are_names_of_the_code(path: Path) -> None:
    """``balance`` in ```balance='sinkhorn'```, ``token_positions`` and the like."""
    named = {
        name
        for code in inline_code(path)
        for name in re.findall(r'(?<![\w./-])([a-z]\w*)=', code)
    }
    assert not named - identifiers()


WITH_OPTIONS = [
    x
    for x in COMMANDS
    if '--cfg-options' in x.values[2] and re.search(r'configs/\S+\.py', x.values[2])
]


@pytest.mark.parametrize(('path', 'script', 'arguments'), WITH_OPTIONS)
def test_settings_of_commands_are_accepted(
    path: Path, script: str, arguments: str
) -> None:
    """By the check that the tools make before anything is built.

    Where a document shows what is refused, the sentence is the one that is shown.
    """
    name = Path(script).name
    words = words_of(arguments)
    config = next(word for word in words if word.endswith('.py'))
    options = words[words.index('--cfg-options') :]
    ending = next((i for i, x in enumerate(options[1:], 1) if x.startswith('--')), None)
    given = argparse.ArgumentParser()
    if not script.startswith('medic-mm '):
        script = f'tools/{LAUNCHERS.get(name, (name,))[0]}'
    parser = parser_of(script)
    given.add_argument('--cfg-options', nargs='+', action=action_of(parser))
    read = given.parse_args(options[:ending]).cfg_options
    shown = re.search(
        rf'^\$ python {re.escape(script)} {re.escape(arguments)}\nerror: (.*)$',
        path.read_text(),
        re.M,
    )
    if shown is None:
        load_config(ROOT / config, read)
    else:
        with pytest.raises(UserError, match=f'^{re.escape(shown[1])}'):
            load_config(ROOT / config, read)


def action_of(parser: argparse.ArgumentParser) -> type[argparse.Action]:
    """How a tool reads ``--cfg-options``."""
    for action in parser._actions:
        if '--cfg-options' in action.option_strings:
            return type(action)
        if isinstance(action, argparse._SubParsersAction):
            return action_of(next(iter(action.choices.values())))
    raise AssertionError(f'{parser.prog} has no --cfg-options')


@cache
def all_keys() -> set[str]:
    """Dotted names of the shipped configs, with their parents."""
    keys: set[str] = set()

    def walk(value: object, name: str) -> None:
        keys.add(name)
        if isinstance(value, dict):
            for key, part in value.items():
                walk(part, f'{name}.{key}' if name else key)

    for path in sorted(ROOT.glob('configs/**/*.py')):
        if '_base_' not in path.parts:
            walk(Config.fromfile(path).to_dict(), '')
    return keys


@pytest.mark.docs
@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_settings_of_configs_exist(path: Path) -> None:
    """Settings such as ``model.head.weights.cls``, but those shown as wrong."""
    text = BLOCK.sub(
        lambda found: '' if 'rror: ' in found[2] else found[0], path.read_text()
    )
    named = set(
        re.findall(
            r'(?<![\w./])((?:model|train_dataloader|val_dataloader|test_dataloader|'
            r'optim_wrapper|default_hooks|train_cfg|env_cfg|randomness|'
            r'data_preprocessor)(?:\.\w+)+)(?=[=`\s,:);])',
            text,
        )
    )
    unknown = {
        name
        for name in named
        if name not in all_keys() and name.rpartition('.')[0] not in all_keys()
    }
    assert not unknown
