"""From a config file and command-line options to a Runner: what all tools share."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from medic_mm.datasets.class_lists import check_settings
from medic_mm.errors import MissingFileError, UserError
from medic_mm.helpers import type_name
from medic_mm.settings.data_root import set_data_root
from medic_mm.settings.device import adapt_to_cpu, has_accelerator
from medic_mm.settings.files import require_writable
from medic_mm.settings.options import check_options, name_problems
from medic_mm.settings.schedule import follow_length, late_ends, run_length
from medic_mm.settings.values import incomplete_loops, value_problems

# mmseg's preprocessor wants the lists that the Runner's own default makes
_WANT_STACKED_IMAGES = ('mmpretrain', 'medic_mm')


def load_config(
    path: str | Path,
    options: dict[str, Any] | None = None,
    data_root: str | None = None,
) -> Config:
    """Read a config file, merge options into it and check the whole of it.

    What follows from the options (see :func:`read_config`) goes to the error output.

    Args:
        path: The config file.
        options: Dotted keys to values, as :class:`OptionAction` gives them.
        data_root: A folder for all data sets of the config.

    Raises:
        UserError: where there is no such file, for an option that no component
            accepts, and for names and values in the config that cannot be meant.
    """
    cfg, notices = read_config(path, options, data_root)
    for notice in notices:
        print(notice, file=sys.stderr)
    require_settings(cfg)
    return cfg


def read_config(
    path: str | Path,
    options: dict[str, Any] | None = None,
    data_root: str | None = None,
) -> tuple[Config, list[str]]:
    """As :func:`load_config`, but for the check of names and values.

    Returns:
        The config, and what was changed beyond the options, for the log: the places of
        ``data_root``, and schedulers that follow the length of the run.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'config {str(path)!r} does not exist')
    cfg = Config.fromfile(path)
    notices = [] if data_root is None else [set_data_root(cfg, data_root)]
    if options:
        check_options(cfg, options)
        length = run_length(cfg)
        cfg.merge_from_dict(options)
        notices += follow_length(cfg, length, options)
    return cfg, [*notices, *late_ends(cfg)]


def setting_problems(cfg: Config) -> list[str]:
    """A sentence for each name and value in a config that cannot be meant."""
    return [*name_problems(cfg), *value_problems(cfg)]


def require_settings(cfg: Config) -> None:
    """Refuse a config with names or values that cannot be meant.

    Raises:
        UserError: names all of them.
    """
    if problems := setting_problems(cfg):
        raise UserError('\n'.join(problems))


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str | Path) -> None:
    """Set ``cfg.work_dir``: the argument, else the config's, else by its file name.

    Raises:
        UserError: where it cannot be a folder that this process writes to.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(config_path).stem))
    require_writable(cfg.work_dir, '--work-dir')


def fill_dataloaders(
    cfg: Config,
    names: Iterable[str],
    pin_memory: bool = True,
    persistent_workers: bool = True,
) -> None:
    """Give dataloaders the defaults of the command-line tools.

    ``default_collate`` for models of mmpretrain and ours; pinned memory where there is
    an accelerator; workers that stay alive between epochs where there are workers.

    Args:
        cfg: The config, changed in place.
        names: Dataloaders by their key in ``cfg``; absent ones are skipped.
        pin_memory: False switches it off whatever the config says.
        persistent_workers: The same.
    """
    for name in names:
        loader = cfg.get(name)
        if loader is None:
            continue
        if cfg.get('default_scope') in _WANT_STACKED_IMAGES:
            loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.setdefault('pin_memory', has_accelerator())
        loader.setdefault('persistent_workers', True)
        loader.pin_memory = loader.pin_memory and pin_memory
        # torch refuses both settings of workers where there are none
        workers = loader.get('num_workers', 0) > 0
        loader.persistent_workers &= workers and persistent_workers
        if not workers:
            loader.pop('prefetch_factor', None)


def build_runner(
    cfg: Config, launcher: str = 'none', notices: Sequence[str] = ()
) -> Runner:
    """Build the Runner, on CPU from settings that are meant for GPUs, too.

    Args:
        cfg: The config, changed in place.
        launcher: What started this process.
        notices: Lines for the log; each setting that has to be replaced adds one.
    """
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        check_settings((cfg.get(loader) or {}).get('dataset'))
    if problems := list(incomplete_loops(cfg)):
        raise UserError('\n'.join(problems))
    cfg.launcher = launcher
    if not has_accelerator():
        notices = [*notices, *adapt_to_cpu(cfg, distributed=launcher != 'none')]
    if cfg.get('runner_type') is None:
        runner = Runner.from_cfg(cfg)
    else:
        runner = RUNNERS.build(cfg)
    for notice in notices:
        runner.logger.warning(notice)
    if not any(type_name(hook) == 'ClassesHook' for hook in runner.hooks):
        runner.register_hook(dict(type='medic_mm.ClassesHook'))
    return runner


def tool_command(tools: Path, name: str, *arguments: str | Path) -> str:
    """A command line that runs a command as ``tools`` was run.

    Args:
        tools: The folder of the tools, or one of them, or the program ``medic-mm``.
        name: The command, which the program and the script have in common.
        arguments: Of the command.
    """
    folder = tools.parent if tools.suffix == '.py' else tools
    if folder.stem == 'medic-mm':
        words = [_called(folder), name]
    else:
        words = [_called(Path(sys.executable)), folder / f'{name}.py']
    return shlex.join(str(short_path(word)) for word in (*words, *arguments))


def _called(program: Path) -> str | Path:
    """A program's name where that is enough to call it, else its path."""
    name = 'python' if program == Path(sys.executable) else program.stem
    found = shutil.which(name)
    active = found is not None and Path(found).parent == program.parent
    return name if active else program


def short_path(path: str | Path) -> Path:
    """The path as seen from the current folder where it lies below it."""
    try:
        return Path(path).relative_to(Path.cwd())
    except ValueError:
        return Path(path)
