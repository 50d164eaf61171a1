"""Process groups: the one place that differs from the host's way without a GPU."""

from __future__ import annotations

import datetime
import os

import torch
from mmengine.config import Config
from torch import distributed

from medic_mm.errors import UserError
from medic_mm.settings.device import has_accelerator

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
_STARTED_BY = {
    'slurm': ('SLURM_PROCID', 'srun (tools/slurm_train.sh)'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'mpirun'),
}


def join_process_group(cfg: Config, launcher: str) -> bool:
    """Initialise a gloo group where the host could not: it needs a CUDA device.

    With an accelerator, or without a launcher, nothing is done: the Runner does it.

    Args:
        cfg: The config; ``env_cfg.dist_cfg.timeout`` (seconds) is read.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        Whether a group was initialised, which :func:`leave_process_group` closes.

    Raises:
        UserError: for a launcher that cannot start this process here, and for more
            processes than GPUs.
    """
    if launcher not in LAUNCHERS:
        raise UserError(
            f'launcher {launcher!r} is unknown: choose from {", ".join(LAUNCHERS)}'
        )
    if launcher == 'none':
        return False
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch needs torchrun, which sets RANK and WORLD_SIZE: use '
            'tools/dist_train.sh (or tools/dist_test.sh) with a number of processes'
        )
    if has_accelerator():
        started = _STARTED_BY.get(launcher)
        if started and started[0] not in os.environ:
            raise UserError(
                f'--launcher {launcher} needs {started[1]}, which sets {started[0]}: '
                'start this command by it'
            )
        _check_device_count()
        return False
    if launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs an accelerator and this machine has none: '
            'use --launcher pytorch (tools/dist_train.sh) for processes on CPU'
        )
    seconds = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    timeout = None if seconds is None else datetime.timedelta(seconds=seconds)
    distributed.init_process_group('gloo', timeout=timeout)
    return True


def is_first_process() -> bool:
    """Whether this is rank 0, also before the group is there."""
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return next((os.environ[key] for key in ranks if key in os.environ), '0') == '0'


def leave_process_group() -> None:
    """Close the group after all ranks have come here."""
    distributed.barrier()
    distributed.destroy_process_group()


def _check_device_count() -> None:
    count = torch.cuda.device_count()
    local_size = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if count and local_size > count:
        raise UserError(
            f'{local_size} processes were started but this machine has {count} '
            f'GPUs: start {count} at most'
        )
