"""Test a checkpoint: run the test loop of a config.

    medic-mm test CONFIG CHECKPOINT

With several processes: ``bash tools/dist_test.sh CONFIG CHECKPOINT GPUS``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults

from medic_mm.datasets.segmentation_files import check_image_suffixes
from medic_mm.errors import UserError
from medic_mm.settings.arguments import add_config_options, add_shared
from medic_mm.settings.building import naming_places
from medic_mm.settings.checkpoint_arguments import require_file, set_strict_weights
from medic_mm.settings.launch import join_process_group, leave_process_group
from medic_mm.settings.run_config import (
    build_runner,
    fill_dataloaders,
    load_config,
    set_work_dir,
    tool_command,
)

_PREDICTIONS = ('.pkl', '.pickle')
_METRICS = ('.json', '.yaml', '.yml')


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file')
    add('--work-dir', help='folder for logs; default: work_dirs/<config name>')
    add('--out', help='file for the metrics (.json, .yaml) or the predictions (.pkl)')
    add(
        '--tta',
        action='store_true',
        help='test on several views of each image, as tta_pipeline and tta_model say',
    )
    add_shared(parser, '--no-pin-memory')
    add_config_options(parser, ', e.g. test_dataloader.batch_size=64')
    add_shared(parser, '--launcher', '--local-rank')


def run(args: Namespace) -> None:
    """Test; the log shows the metrics."""
    run_testing(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        tta=args.tta,
        pin_memory=not args.no_pin_memory,
        options=args.cfg_options,
        data_root=args.data_root,
        launcher=args.launcher,
        tools=Path(sys.argv[0]),
    )


@naming_places()
def run_testing(
    config: str | Path,
    checkpoint: str | Path,
    work_dir: str | None = None,
    out: str | Path | None = None,
    tta: bool = False,
    pin_memory: bool = True,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
    tools: Path = Path('tools'),
    data_root: str | None = None,
) -> dict[str, float]:
    """Run the test loop of a config on a checkpoint.

    Args:
        config: The config file.
        checkpoint: The checkpoint; it must hold every weight of the model.
        work_dir: Folder for the log. Default: the config's, else
            ``work_dirs/<name of the config file>``.
        out: File to write: the metrics for ``.json``, ``.yaml``, ``.yml``, the
            predictions for ``.pkl``, ``.pickle``.
        tta: Test on the views of ``tta_pipeline`` and merge them by ``tta_model``.
        pin_memory: False switches it off.
        options: Dotted config keys to values.
        launcher: What started this process: ``'none'``, ``'pytorch'``, ``'slurm'`` or
            ``'mpi'``.
        tools: What messages name to call: the folder of the command-line tools, or a
            script of it, or the program ``medic-mm``.
        data_root: A folder for all data sets of the config.

    Returns:
        The metrics by name.

    Raises:
        UserError: where the config or the checkpoint does not exist, the config has
            no test loop or (with ``tta``) no views, ``out`` has another suffix, or an
            option fits no component.
        FileError: for a checkpoint that carries code, is damaged, or does not fit the
            model.
    """
    if out is not None and Path(out).suffix not in _PREDICTIONS + _METRICS:
        raise UserError(
            f'--out {out}: the suffix says what is written, metrics for '
            f'{", ".join(_METRICS)}, predictions for {", ".join(_PREDICTIONS)}'
        )
    cfg = load_config(config, options, data_root)
    if cfg.get('test_cfg') is None or cfg.get('test_dataloader') is None:
        raise UserError(
            f'{config} has no test loop (test_cfg, test_dataloader, test_evaluator), '
            'as is usual for pre-training: measure its features by '
            f'{tool_command(tools, "knn", config, checkpoint)}'
        )
    if '://' not in str(checkpoint):
        require_file(checkpoint, 'checkpoint')
    if tta:
        _test_on_views(cfg, config)
    set_work_dir(cfg, work_dir, config)
    cfg.load_from, cfg.resume = str(checkpoint), False
    settings = (cfg.get('test_dataloader') or {}).get('dataset')
    check_image_suffixes(settings, cfg.get('default_scope'))
    fill_dataloaders(cfg, ['test_dataloader'], pin_memory)
    joined = join_process_group(cfg, launcher)
    set_strict_weights(cfg, None)
    runner = build_runner(cfg, launcher)
    if out is not None and Path(out).suffix in _PREDICTIONS:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=str(out)))
    metrics = runner.test()
    if out is not None and Path(out).suffix in _METRICS and is_main_process():
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        mmengine.dump(metrics, str(out))
    if joined:
        leave_process_group()
    return metrics


def _test_on_views(cfg: Config, path: str | Path) -> None:
    missing = [name for name in ('tta_pipeline', 'tta_model') if name not in cfg]
    if missing:
        raise UserError(f'--tta: {path} does not set {" and ".join(missing)}')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
