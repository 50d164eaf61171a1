"""Train a model.

    medic-mm train CONFIG
    medic-mm train CONFIG --check

With several processes: ``bash tools/dist_train.sh CONFIG GPUS``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from medic_mm.datasets.segmentation_files import check_image_suffixes
from medic_mm.errors import UserError
from medic_mm.evaluation.loaders import find_dataloaders, require_batches
from medic_mm.settings.arguments import add_config_options, add_shared
from medic_mm.settings.building import naming_places
from medic_mm.settings.checkpoint_arguments import (
    finished_run,
    require_file,
    set_resume,
    set_strict_weights,
)
from medic_mm.settings.launch import (
    is_first_process,
    join_process_group,
    leave_process_group,
)
from medic_mm.settings.pretrained import set_pretrained
from medic_mm.settings.readiness import Readiness, check_config
from medic_mm.settings.run_config import (
    build_runner,
    fill_dataloaders,
    read_config,
    require_settings,
    set_work_dir,
    setting_problems,
    tool_command,
)
from medic_mm.settings.values import incomplete_loops

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('config', help='config file')
    add(
        '--work-dir',
        help='folder for logs and checkpoints; default: work_dirs/<config name>',
    )
    add(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='go on from this checkpoint, or from the newest one of the work folder',
    )
    add(
        '--resume-partial',
        nargs='+',
        default=(),
        metavar='NAME',
        help='beginnings of names of weights that may differ from the checkpoint '
        '(of --resume, load_from, or a pre-trained part); the model keeps its own',
    )
    add(
        '--pretrained',
        metavar='FILE',
        help="start the backbone from this checkpoint, loaded strictly; 'random': from "
        'random weights',
    )
    flags = {
        '--amp': 'train in mixed precision (needs a GPU)',
        '--auto-scale-lr': 'scale the learning rate to the number of images of one '
        'optimizer step',
        '--no-validate': 'leave the validation loop out',
        '--no-persistent-workers': 'end the workers of dataloaders after each epoch',
        '--check': 'look for all that a training needs, print what is missing, train '
        'nothing',
        '--no-check': 'for dist_train.sh and slurm_train.sh: start without --check (or '
        'CHECK=0)',
    }
    for flag, what in flags.items():
        add(flag, action='store_true', help=what)
    add_shared(parser, '--no-pin-memory')
    add_config_options(
        parser,
        ', e.g. optim_wrapper.optimizer.lr=1e-3 '
        'custom_hooks.0.interval=5 model.backbone.arch=small',
    )
    add(
        '--processes',
        type=int,
        default=1,
        help='number of processes that --check counts with; default 1',
    )
    add_shared(parser, '--launcher', '--local-rank')


def run(args: Namespace) -> int | None:
    """Train; or check, print what was found, and return 1 where it lacks something."""
    settings = dict(
        config=args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        resume_partial=args.resume_partial,
        pretrained=args.pretrained,
        amp=args.amp,
        validate=not args.no_validate,
        options=args.cfg_options,
        data_root=args.data_root,
    )
    if args.check:
        ready = check_training(**settings, processes=args.processes)
        print(ready)
        return 0 if ready else 1
    run_training(
        **settings,
        auto_scale_lr=args.auto_scale_lr,
        pin_memory=not args.no_pin_memory,
        persistent_workers=not args.no_persistent_workers,
        launcher=args.launcher,
        tools=Path(sys.argv[0]),
    )
    return None


@naming_places()
def run_training(
    config: str | Path,
    work_dir: str | None = None,
    resume: str | None = None,
    resume_partial: Sequence[str] = (),
    pretrained: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    validate: bool = True,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
    tools: Path | None = None,
    data_root: str | None = None,
) -> Runner | None:
    """Train a model.

    Args:
        config: The config file.
        work_dir: Folder for logs and checkpoints. Default: the config's, else
            ``work_dirs/<name of the config file>``.
        resume: ``'auto'`` goes on from the newest checkpoint of ``work_dir`` (and
            starts anew where there is none); a path goes on from that checkpoint.
        resume_partial: Beginnings of names of weights that may be missing, left over
            or unfit in a checkpoint that is resumed from, in ``load_from``, and in
            pre-trained parts; the model keeps its own values for these.
        pretrained: A checkpoint whose backbone the model starts from, loaded strictly;
            or ``'random'``. Not read when a run is resumed.
        amp: Train in mixed precision whatever the config says.
        auto_scale_lr: Scale the learning rate to the number of images that make one
            optimizer step.
        validate: Run the validation loop of the config.
        pin_memory: False switches it off in all dataloaders.
        persistent_workers: The same.
        options: Dotted config keys to values.
        launcher: What started this process: ``'none'``, ``'pytorch'``, ``'slurm'`` or
            ``'mpi'``.
        tools: What is called next: the folder of the command-line tools, or a script
            of it, or the program ``medic-mm``. Where it is given, the last line of the
            log is the next useful command.
        data_root: A folder for all data sets of the config.

    Returns:
        The Runner after training; None where a resumed run was finished before.

    Raises:
        UserError: where the config or the checkpoint does not exist, an option fits
            no component, or an argument needs a setting that the config lacks.
        FileError: for a checkpoint that carries code, is damaged, or does not fit.
    """
    cfg, notices = read_config(config, options, data_root)
    require_settings(cfg)
    _prepare(cfg, config, work_dir, pretrained, amp, validate)
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    elif resume is None and '://' not in (cfg.get('load_from') or '://'):
        require_file(cfg.load_from, 'load_from')
    notices += [] if resume is None else set_resume(cfg, resume)
    if resume is not None and (finished := finished_run(cfg)):
        if is_first_process():
            print(finished)
        return None
    set_strict_weights(cfg, resume_partial)
    if auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise UserError(
                '--auto-scale-lr needs to know the batch size that the learning rate '
                'is meant for: set auto_scale_lr=dict(base_batch_size=...) in the '
                'config'
            )
        cfg.auto_scale_lr.enable = True
    _prepare_data(cfg, pin_memory, persistent_workers)
    joined = join_process_group(cfg, launcher)
    runner = build_runner(cfg, launcher, notices)
    _count_accumulation(runner)
    # the loop is built here, before schedules fail on an epoch without steps
    require_batches(runner.train_loop.dataloader)
    runner.train()
    if tools is not None and is_main_process():
        _log_next_command(runner, config, bool(options), tools)
    if joined:
        leave_process_group()
    return runner


def _prepare(
    cfg: Config,
    config: str | Path,
    work_dir: str | None,
    pretrained: str | None,
    amp: bool,
    validate: bool,
) -> None:
    """Change a config as the arguments say."""
    if pretrained is not None:
        set_pretrained(cfg, pretrained)
    set_work_dir(cfg, work_dir, config)
    if cfg.get('train_cfg') is None or cfg.get('train_dataloader') is None:
        raise UserError(f'{config} has no training loop (train_cfg, train_dataloader)')
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _prepare_data(cfg: Config, pin_memory: bool, persistent_workers: bool) -> None:
    """Check and complete the loaders of a config."""
    for loader in ('train_dataloader', 'val_dataloader'):
        settings = (cfg.get(loader) or {}).get('dataset')
        check_image_suffixes(settings, cfg.get('default_scope'))
    fill_dataloaders(cfg, _LOADERS, pin_memory, persistent_workers)


@naming_places()
def check_training(
    config: str | Path,
    work_dir: str | None = None,
    resume: str | None = None,
    resume_partial: Sequence[str] = (),
    pretrained: str | None = None,
    amp: bool = False,
    validate: bool = True,
    options: dict[str, Any] | None = None,
    data_root: str | None = None,
    processes: int = 1,
) -> Readiness:
    """Look for all that a training needs; builds parts of it, trains nothing.

    The arguments are those of :func:`run_training`, and ``processes``: how many will
    train.

    Raises:
        UserError: where the config cannot be read with these options.
    """
    ready = Readiness(f'{config} for {processes} process{"es" * (processes > 1)}')
    cfg, notices = read_config(config, options, data_root)
    ready.found += notices
    ready.missing += [*setting_problems(cfg), *incomplete_loops(cfg)]
    with ready.part('arguments'):
        _prepare(cfg, config, work_dir, pretrained, amp, validate)
        ready.found += [] if resume is None else set_resume(cfg, resume)
        set_strict_weights(cfg, resume_partial)
    with ready.part('data'):
        _prepare_data(cfg, pin_memory=True, persistent_workers=True)
    check_config(cfg, ready, processes)
    return ready


def _count_accumulation(runner: Runner) -> None:
    """Let learning rate scaling count the batches that one step accumulates.

    mmengine compares the batch of one forward pass with ``base_batch_size``. The
    config is left as it is, so that the saved copy can be run again.
    """
    scaling = runner.auto_scale_lr
    steps = runner.cfg.optim_wrapper.get('accumulative_counts', 1)
    if scaling and scaling.get('enable') and steps > 1:
        base = scaling['base_batch_size'] / steps
        runner.auto_scale_lr = {**scaling, 'base_batch_size': base}
        runner.logger.info(
            f'Learning rate scaling: {steps} batches are accumulated for a step, so '
            f'one batch is compared with {scaling["base_batch_size"]} / {steps}.'
        )


def _log_next_command(
    runner: Runner, config: str | Path, changed: bool, tools: Path
) -> None:
    pointer = Path(runner.work_dir, 'last_checkpoint')
    name = 'test'
    if runner.cfg.get('test_cfg') is None:
        name = 'knn'
        try:
            find_dataloaders(runner.cfg)
        except UserError:
            return
    if pointer.is_file():
        # the copy in the work folder holds the options of the command line
        used = Path(runner.work_dir, Path(config).name) if changed else config
        command = tool_command(tools, name, used, pointer.read_text().strip())
        runner.logger.info(f'Next: {command}')
