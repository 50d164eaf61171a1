"""Train a model: ``python tools/train.py CONFIG``.

With several processes: ``bash tools/dist_train.sh CONFIG GPUS``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from medic_mm.cli.train import check_training, run_training
from medic_mm.settings.arguments import add_config_options
from medic_mm.settings.cli import sentences_for_users
from medic_mm.settings.run_config import LAUNCHERS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints; default: work_dirs/<config name>',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='go on from this checkpoint, or from the newest one of the work folder',
    )
    parser.add_argument(
        '--resume-partial',
        nargs='+',
        default=(),
        metavar='NAME',
        help='beginnings of names of weights that may differ from the checkpoint '
        '(of --resume, load_from, or a pre-trained part); the model keeps its own',
    )
    parser.add_argument(
        '--pretrained',
        metavar='FILE',
        help="start the backbone from this checkpoint, loaded strictly; 'random': from "
        'random weights',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision (needs a GPU)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the number of images of one optimizer step',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='leave the validation loop out'
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='no pinned memory in dataloaders'
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='end the workers of dataloaders after each epoch',
    )
    add_config_options(
        parser,
        ', e.g. optim_wrapper.optimizer.lr=1e-3 '
        'custom_hooks.0.interval=5 model.backbone.arch=small',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='look for all that a training needs, print what is missing, train nothing',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='for dist_train.sh and slurm_train.sh: start without --check (or CHECK=0)',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        help='number of processes that --check counts with; default 1',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none')
    # older launchers pass the rank as an argument
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@record
def main() -> None:
    args = parse_args()
    with sentences_for_users():
        settings = dict(
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
            ready = check_training(args.config, **settings, processes=args.processes)
            print(ready)
            raise SystemExit(0 if ready else 1)
        run_training(
            args.config,
            **settings,
            auto_scale_lr=args.auto_scale_lr,
            pin_memory=not args.no_pin_memory,
            persistent_workers=not args.no_persistent_workers,
            launcher=args.launcher,
            tools=Path(sys.argv[0]).parent,
        )


if __name__ == '__main__':
    main()
