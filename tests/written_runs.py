"""Run folders as ``tools/train.py`` leaves them, written by hand and in no time."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

STEPS_PER_EPOCH = 10
SYSTEM = """
------------------------------------------------------------
System environment:
    sys.platform: linux
    Python: 3.11.7 (main)
    PyTorch: 2.15.0
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3
    MMEngine: 0.10.12

Runtime environment:
    seed: 7
    GPU number: 2
------------------------------------------------------------
"""


def settings(**changes: Any) -> dict[str, Any]:
    """A small config of MEDiC."""
    return dict(
        model=dict(
            type='medic_mm.MEDiC',
            backbone=dict(
                type='medic_mm.MaskedViT',
                arch=dict(
                    embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96
                ),
                img_size=32,
                patch_size=8,
            ),
            target_generator=dict(
                type='medic_mm.TimmTeacher', model_name='vit_tiny', weights='a/b.pth'
            ),
        ),
        train_dataloader=dict(
            batch_size=16, dataset=dict(type='CustomDataset', data_root='data/some')
        ),
        custom_hooks=[dict(type='medic_mm.KNNHook', k=(20,))],
        vis_backends=[dict(type='LocalVisBackend')],
        train_cfg=dict(by_epoch=True, max_epochs=4),
        randomness=dict(seed=7),
        **changes,
    )


class WrittenRun:
    """One start of a run in ``folder``; more may follow.

    Args:
        folder: The work folder.
        config: The settings; those of :func:`settings` by default.
        name: Of the copied config.
        begin: Time of the first line.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any] | None = None,
        name: str = 'tiny.py',
        begin: str = '20260102_030405',
    ) -> None:
        self.folder, self.start = folder, folder / begin
        self.data = self.start / 'vis_data'
        (self.data / 'vis_image').mkdir(parents=True)
        self.time = datetime.strptime(begin, '%Y%m%d_%H%M%S')
        self.log = self.start / f'{begin}.log'
        self.say(SYSTEM)
        found = Config(settings() if config is None else config)
        found.dump(self.data / 'config.py')
        found.dump(folder / name)

    def say(self, text: str, level: str = 'INFO', wait: float = 10) -> None:
        """A line of the log, ``wait`` seconds after the last."""
        self.time += timedelta(seconds=wait)
        with self.log.open('a') as file:
            file.write(f'{self.time:%Y/%m/%d %H:%M:%S} - mmengine - {level} - {text}\n')

    def scalars(self, step: float, **values: float) -> None:
        """A line of the scalars."""
        with (self.data / 'scalars.json').open('a') as file:
            file.write(json.dumps({**values, 'step': step}) + '\n')

    def train(self, first: int, last: int, every: int = 5, **values: float) -> None:
        """Lines of training from epoch ``first`` to the end of epoch ``last``."""
        total = STEPS_PER_EPOCH
        for iteration in range((first - 1) * total + every, last * total + 1, every):
            epoch, step = divmod(iteration - 1, total)
            self.say(f'Epoch(train) [{epoch + 1}][{step + 1}/{total}]  loss: 0.5')
            found = dict(loss=2.0 / iteration, loss_token=1.5 / iteration)
            found.update(raw_token=3.0 / iteration, lr=1e-3, time=0.5, data_time=0.01)
            position = dict(epoch=epoch + 1, iter=iteration)
            self.scalars(iteration, **found, **values, **position)

    def evaluate(self, epoch: int, cls: float, mean: float) -> None:
        """A point of k-NN."""
        numbers = {'knn/cls_top1_k20': cls, 'knn/mean_top1_k20': mean}
        self.scalars(epoch, **numbers)

    def save(self, epoch: int) -> None:
        """A checkpoint."""
        self.say(f'Saving checkpoint at {epoch} epochs')
        path = self.folder / f'epoch_{epoch}.pth'
        path.write_bytes(b'weights')
        (self.folder / 'last_checkpoint').write_text(str(path))

    def panel(self, epoch: int, colour: tuple[int, int, int] = (1, 2, 3)) -> Path:
        """A picture of PanelHook."""
        path = self.data / 'vis_image' / f'panel_{epoch}.png'
        Image.fromarray(np.full((2, 3, 3), colour, np.uint8)).save(path)
        return path


def finished_run(folder: Path, **changes: Any) -> WrittenRun:
    """Four epochs, k-NN, a panel and a checkpoint; nothing to warn of."""
    run = WrittenRun(folder, settings(**changes))
    run.evaluate(0, 10.0, 11.0)
    run.train(1, 4, std_cls=0.6, used_heads_qk=3.0, cos_student_qk=0.8, grad_norm=1.0)
    run.evaluate(4, 41.25, 38.5)
    run.panel(4)
    run.save(4)
    return run
