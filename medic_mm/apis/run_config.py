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

from medic_mm.apis.cfg_options import check_options
from medic_mm.apis.device import adapt_to_cpu, has_accelerator
from medic_mm.datasets.folder_positions import check_settings
from medic_mm.engine.hooks import ClassesHook
from medic_mm.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
# mmseg's preprocessor wants the lists that the Runner's own default makes
_WANT_STACKED_IMAGES = ('mmpretrain', 'medic_mm')


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config file and merge options into it.

    Args:
        path: The config file.
        options: Dotted keys to values, as :class:`OptionAction` gives them.

    Raises:
        UserError: where there is no such file, and for an option that no component
            accepts.
    """
    if not Path(path).is_file():
        raise UserError(f'config {str(path)!r} does not exist')
    cfg = Config.fromfile(path)
    if options:
        check_options(cfg, options)
        cfg.merge_from_dict(options)
    return cfg


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str | Path) -> None:
    """Set ``cfg.work_dir``: the argument, else the config's, else by its file name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(config_path).stem))


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
    cfg.launcher = launcher
    if not has_accelerator():
        notices = [*notices, *adapt_to_cpu(cfg, distributed=launcher != 'none')]
    if cfg.get('runner_type') is None:
        runner = Runner.from_cfg(cfg)
    else:
        runner = RUNNERS.build(cfg)
    for notice in notices:
        runner.logger.warning(notice)
    if not any(isinstance(hook, ClassesHook) for hook in runner.hooks):
        runner.register_hook(ClassesHook(), priority=ClassesHook.priority)
    return runner


def tool_command(tool: Path, *arguments: str | Path) -> str:
    """A command line that runs one of our tools with this interpreter."""
    found = shutil.which('python')
    active = found is not None and Path(found).parent == Path(sys.executable).parent
    python = 'python' if active else short_path(sys.executable)
    return shlex.join([str(python), *(str(short_path(a)) for a in (tool, *arguments))])


def short_path(path: str | Path) -> Path:
    """The path as seen from the current folder where it lies below it."""
    try:
        return Path(path).relative_to(Path.cwd())
    except ValueError:
        return Path(path)
