"""The program ``medic-mm``: one table of commands, which ``tools/`` calls as well."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from medic_mm.cli import export_hf, export_onnx, main, train
from medic_mm.cli.main import COMMANDS, call, command_parser, root_folder

# not a command of the program: it shows the package to a newcomer with a clone
APART = {'quickstart.py'}


def test_each_tool_is_a_command(root: Path) -> None:
    tools = {path.name for path in (root / 'tools').glob('*.py')}
    assert {command.tool for command in COMMANDS.values()} == tools - APART
    assert root_folder() == root
    for command in COMMANDS.values():
        called = (root / 'tools' / command.tool).read_text().split('call(')[1]
        name = called.partition(')')[0].strip("'")
        assert COMMANDS[name].tool == command.tool


@pytest.mark.parametrize('name', [name for name in COMMANDS if name != 'check'])
def test_help_names_the_program_that_was_called(name: str) -> None:
    by_program = command_parser(name, f'medic-mm {name}').format_help()
    assert f'\n    medic-mm {name} ' in by_program
    by_tool = command_parser(name).format_help()
    assert 'medic-mm' not in by_tool
    assert f'\n    python tools/{COMMANDS[name].tool} ' in by_tool


def test_help_of_the_program_imports_no_torch(root: Path) -> None:
    code = (
        'import sys\nfrom medic_mm.cli.main import main\n'
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    assert not {'torch', 'mmengine', 'timm'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert f'  {name:<12} {command.what}\n' in done.stdout


def test_unknown_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(['trian', 'config.py'])
    assert caught.value.code == 2
    assert "invalid choice: 'trian' (choose from 'train', " in capsys.readouterr().err


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Namespace]:
    """What ``run`` of some commands gets, in place of what it does."""
    found: list[Namespace] = []
    for module in (train, export_hf, export_onnx):
        monkeypatch.setattr(module, 'run', found.append)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    return found


def test_check_is_training_with_an_option(given: list[Namespace]) -> None:
    main.main(['check', 'a.py', '--cfg-options', 'a=1'])
    main.main(['train', 'a.py', '--amp'])
    assert [args.check for args in given] == [True, False]
    assert (given[0].cfg_options, given[1].amp) == ({'a': 1}, True)


@pytest.mark.parametrize('name', ['export-hf', 'export-onnx'])
@pytest.mark.parametrize(
    ('words', 'config'),
    [
        (['a.pth', 'out'], None),
        (['none', 'a.pth', 'out'], None),
        (['a.py', 'a.pth', 'out'], 'a.py'),
    ],
)
def test_config_stands_before_the_checkpoint(
    given: list[Namespace], name: str, words: list[str], config: str | None
) -> None:
    option = ['--push', 'x/y'] if name == 'export-hf' else ['--img-size', '8']
    for place in range(len(words) + 1):
        main.main([name, *words[:place], *option, *words[place:]])
    for args in given:
        target = args.folder if name == 'export-hf' else args.file
        assert (args.config, args.checkpoint, target) == (config, 'a.pth', 'out')


def test_old_config_of_an_onnx_file(given: list[Namespace]) -> None:
    call('export-onnx', ['a.pth', 'a.onnx', '--config', 'a.py'])
    (args,) = given
    assert (args.config, args.own_config, args.checkpoint) == (None, 'a.py', 'a.pth')


def test_status_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, 'run', lambda args: args.processes)
    call('train', ['a.py', '--processes', '0'])
    with pytest.raises(SystemExit) as caught:
        call('train', ['a.py', '--processes', '3'])
    assert caught.value.code == 3
