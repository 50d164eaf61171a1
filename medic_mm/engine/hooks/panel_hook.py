"""Pictures of fixed images while a model trains."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

from medic_mm.checks import require_number
from medic_mm.helpers import unwrapped
from medic_mm.models.teachers import FrozenTeacher
from medic_mm.pictures.panel import Panel, make_panel, render_panel
from medic_mm.pictures.reconstruction import decodes
from medic_mm.randomness import eval_mode, preserved_randomness
from medic_mm.registry import HOOKS

#: The images and their masks are the same in all runs.
_SEED = 0
#: Beginning of the names of the files and tags that the backends write.
PANEL_NAME = 'panel'


@HOOKS.register_module()
class PanelHook(Hook):
    """Draws what the model makes of a few fixed images, every few epochs.

    A panel has a column for each image, and rows for the input, the masked input and
    the reconstruction (where the model has a pixel decoder), and the principal
    components of the patch tokens of student and teacher. Images and masks are the same
    each time. It goes to all visualisation backends of the run as ``panel``; the local
    one writes ``vis_data/vis_image/panel_<epoch>.png``.

    Training goes on as if the hook were not there: generators and modes are restored,
    and in a run of several processes the first one draws by itself. A panel is made
    once, and not kept, before the first step, so that what cannot be drawn ends the
    run then.

    Args:
        dataset: Config of a data set with test transforms. For a model that takes its
            masks from the samples the pipeline has a mask transform before
            ``PackInputs``, as the training pipeline has.
        interval: Epochs between panels; the last epoch always has one.
        num_images: So many images, spread at random over the data set.
        teacher: Also show the teacher's features. For a ``CachedTeacher`` the teacher
            behind it answers, since the cache knows training images only.

    Raises:
        ValueError: before the first step: for settings out of range, too few images,
            or a model that gives no tokens.
    """

    def __init__(
        self,
        dataset: dict,
        interval: int = 10,
        num_images: int = 8,
        teacher: bool = True,
    ) -> None:
        for name, value in (('interval', interval), ('num_images', num_images)):
            require_number(self, name, value, low=1, integer=True)
        self.dataset_config = dataset
        self.interval = interval
        self.num_images = num_images
        self.teacher = teacher
        self._batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Read the images, and see that a panel can be made of them."""
        with preserved_randomness(_device(unwrapped(runner.model))):
            # by all processes, since some data sets wait for all
            dataset = DATASETS.build(copy.deepcopy(self.dataset_config))
            if not is_main_process():
                return
            _seed(torch.device('cpu'))
            self._batch = _read(dataset, self.num_images)
        _require_masks(unwrapped(runner.model), self._batch)
        self._make(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw where the interval says so, and after the last epoch."""
        due = self.every_n_epochs(runner, self.interval)
        if not is_main_process() or not (due or self.is_last_train_epoch(runner)):
            return
        epoch = runner.epoch + 1
        picture = render_panel(self._make(runner), f'Epoch {epoch}')
        runner.visualizer.add_image(PANEL_NAME, picture, step=epoch)

    def _make(self, runner: Runner) -> Panel:
        model = unwrapped(runner.model)
        device = _device(model)
        teacher = getattr(model, 'target_generator', None)
        with preserved_randomness(device), eval_mode(model):
            _seed(device)
            # a preprocessor may change what it is given
            panel = make_panel(model, copy.deepcopy(self._batch), self.teacher)
        if isinstance(teacher, FrozenTeacher) and teacher.uncached is not teacher:
            teacher.network.cpu()  # where it rests while the cache answers
        return panel


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _seed(device: torch.device) -> None:
    """Seed what images and masks are drawn from, within preserved randomness."""
    random.seed(_SEED)
    # transforms draw from numpy's global generator
    np.random.seed(_SEED)  # noqa: NPY002
    torch.default_generator.manual_seed(_SEED)
    if device.type == 'cuda':
        # of this device alone: the others' are not restored
        with torch.cuda.device(device):
            torch.cuda.manual_seed(_SEED)


def _read(dataset: Any, count: int) -> dict:
    """A collated batch of images from all over a data set."""
    if len(dataset) < count:
        raise ValueError(
            f'num_images={count} of PanelHook, but its data set has {len(dataset)}: '
            'use fewer'
        )
    order = torch.randperm(len(dataset))[:count].tolist()
    return default_collate([dataset[index] for index in order])


def _require_masks(model: nn.Module, batch: dict) -> None:
    """Refuse samples without masks where the model does not make its own."""
    takes_masks = getattr(model, 'masking', False) is None
    if decodes(model) and takes_masks and 'mask' not in batch['data_samples'][0]:
        raise ValueError(
            'the images of PanelHook have no masks: put BlockMask, RandomMask or '
            'GridMask before PackInputs in the pipeline of its dataset, as in training'
        )
