"""Where the masks of a batch come from: its data samples, or someone's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import ExponentialMovingAverage
from torch import Generator, Tensor, nn

from medic_mm.checks import require, require_number, require_numbers
from medic_mm.errors import UserError
from medic_mm.masking import (
    PatchSplit,
    evolved_alpha,
    evolved_mask,
    evolved_num_clusters,
    masked_count,
)
from medic_mm.models.vit.attention import require_readable_attention, summed_attention
from medic_mm.randomness import global_generator
from medic_mm.registry import MODELS

SOURCES = ('teacher', 'student_ema', 'student_online')
LAST_EPOCH = (0, 1)


def given_masks(data_samples: Sequence, device: torch.device) -> PatchSplit:
    """Visible and hidden patches by the masks of the data samples."""
    if not all('mask' in sample for sample in data_samples):
        raise UserError(
            'the data samples have no mask: put BlockMask, RandomMask or GridMask '
            'before PackInputs in the training pipeline, or let the model make masks '
            "(masking=dict(type='medic_mm.EvolvedMasking'))"
        )
    return PatchSplit.from_samples([sample.mask for sample in data_samples], device)


class EvolvedStage(NamedTuple):
    """Weight of the parts, in (0, 1], and parts looked for at one step."""

    alpha: float
    num_clusters: int


class EvolvedSchedule:
    """How masks evolve; see :mod:`medic_mm.masking.evolved`.

    Args:
        gamma: Alpha is ``((epoch + 1) / epochs) ** gamma``.
        clusters: Clusters in the first and in the last epoch.
        spread: Largest random addition to them, drawn for each batch.

    Raises:
        UserError: for a value out of range, or an unknown setting.
    """

    def __init__(
        self,
        gamma: float = 0.2,
        clusters: Sequence[int] = (40, 10),
        spread: int = 2,
        **unknown: Any,
    ) -> None:
        require(
            not unknown,
            f'masking.schedule has no setting {next(iter(unknown), None)!r}: it has '
            'gamma, clusters, spread',
        )
        what = 'clusters in the first and in the last epoch'
        _require_pair('masking.schedule.clusters', clusters, what, low=1)
        self.gamma, self.clusters, self.spread = gamma, clusters, spread
        self.at(0, 1, Generator())  # refuses what is out of range

    def at(
        self, epoch: int, epochs: int, generator: Generator | None = None
    ) -> EvolvedStage:
        """The stage of one batch; the spread is drawn on the CPU."""
        first, last = self.clusters
        return EvolvedStage(
            evolved_alpha(epoch, epochs, self.gamma),
            evolved_num_clusters(epoch, epochs, first, last, self.spread, generator),
        )


class MovingAverage(ExponentialMovingAverage):
    """mmengine's ``ExponentialMovingAverage`` without waiting for the device.

    mmengine's reads its counter from the device at each update; this one decides there.
    Each call counts, and buffers are copied.
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, moved: Tensor | None = None) -> None:
        """Move towards a network if it has ``moved``, a bool ``()`` on the device.

        The first time, become its copy.
        """
        if moved is None:
            moved = torch.ones_like(self.steps, dtype=torch.bool)
        rate = torch.where(self.steps == 0, 1.0, self.momentum * moved)
        weights = self.module.parameters(), model.parameters()
        for ours, theirs in zip(*weights, strict=True):
            ours.lerp_(theirs, rate.to(ours.dtype))
        for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
        self.steps += moved


@MODELS.register_module()
class EvolvedMasking(nn.Module):
    """Draws the masks of a batch from attention, on the device; no transform does.

    Takes the place of ``BlockMask`` and its kind in the training pipeline::

        model = dict(masking=dict(
            type='medic_mm.EvolvedMasking',
            source='teacher', mask_ratio=0.75, method='hierarchical',
            schedule=dict(gamma=0.2, clusters=(40, 10), spread=2),
            clustering=dict(spatial_bias=1.0)))

    The epoch is the running training's, from mmengine's message hub, so that a resumed
    training goes on where it stopped. A training of one epoch, such as one by
    iterations, evolves from iteration to iteration. Outside a training masks are those
    of the last epoch, unless :attr:`progress` says otherwise.

    ``'student_ema'`` keeps a moving average of the backbone. It starts as a copy at the
    first training step; later each step that finds the backbone's class token changed
    moves it towards the backbone, before masks are made. So it lags one optimizer step
    behind, and moves once per optimizer step under gradient accumulation as well. It is
    saved as ``masking.average.*``.

    Sources: the released code of Evolved Part Masking (CVPR 2023) and MEDiC; see
    :func:`medic_mm.masking.evolved_mask` for what differs.

    Args:
        source: Whose attention: ``'teacher'`` (one block of it, mean over heads, from
            the pass that also gives the targets), ``'student_ema'`` (a moving average
            of the backbone, all blocks and heads summed) or ``'student_online'`` (the
            backbone as it is, summed in the same way).
        mask_ratio: Share of patches to hide; the count is rounded down, as in
            ``BlockMask``.
        method: ``'em'`` or ``'hierarchical'``.
        schedule: Settings of :class:`EvolvedSchedule`: ``gamma``, ``clusters``,
            ``spread``.
        noise: ``'grid'`` or ``'random'``.
        clustering: More settings of the method, such as ``kappa``, ``iterations``,
            ``axis`` and ``unit_length`` ('em'), or ``spatial_bias``, ``linkage`` and
            ``axis`` ('hierarchical').
        momentum: Of the moving average, in (0, 1): 0.9999 in the released MEDiC code,
            0.99996 in that of EPM.
        progress: ``(epoch, epochs)``, epoch from 0, in place of the training's.

    Raises:
        UserError: for a setting that is unknown or out of range.
    """

    def __init__(
        self,
        source: str = 'teacher',
        mask_ratio: float = 0.75,
        method: str = 'em',
        schedule: Mapping[str, Any] | None = None,
        noise: str = 'grid',
        clustering: Mapping[str, Any] | None = None,
        momentum: float = 0.9999,
        progress: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        require(
            source in SOURCES,
            f"masking.source={source!r} is unknown: use 'teacher', 'student_ema' or "
            "'student_online'",
        )
        require_number(self, 'masking.momentum', momentum, above=0, below=1)
        require_number(self, 'masking.mask_ratio', mask_ratio, low=0, high=1)
        self.source = source
        self.mask_ratio = mask_ratio
        self.settings = dict(method=method, noise=noise, **(clustering or {}))
        self.schedule = EvolvedSchedule(**(schedule or {}))
        self.momentum = momentum
        if progress is not None:
            what = 'the epoch, from 0, and the number of epochs'
            _require_pair('masking.progress', progress, what, low=0)
            evolved_alpha(*progress)  # refuses what is out of range
        self.progress = progress
        self.average: MovingAverage | None = None
        self._seen: Tensor | None = None
        self._warned = False

    @property
    def uses_teacher(self) -> bool:
        """Whether the attention is the teacher's."""
        return self.source == 'teacher'

    def prepare(self, backbone: nn.Module, teacher: nn.Module | None) -> None:
        """Take the grid of the student and make its moving average.

        Raises:
            UserError: where grid, settings, teacher or backbone do not fit.
        """
        rows, columns = backbone.patch_resolution
        self.grid = (int(rows), int(columns))
        length = rows * columns
        self.num_masked = masked_count(length, self.mask_ratio)
        require(
            0 < self.num_masked < length,
            f'masking.mask_ratio={self.mask_ratio} would hide {self.num_masked} of '
            f'{length} patches: it must hide at least 1 and at most {length - 1}',
        )
        most, spread = self.schedule.clusters[0], self.schedule.spread
        require(
            most + spread <= length,
            f'masking.schedule asks for up to {most + spread} clusters '
            f'(clusters[0]={most} + spread={spread}), but the grid of {rows}x{columns} '
            f'has {length} patches: choose clusters[0] well below that',
        )
        # a mask of one image: its checks know all settings of all methods
        trial = torch.eye(length, device='cpu')[None]
        self._draw(trial, EvolvedStage(1.0, length), Generator())
        if self.uses_teacher:
            _check_teacher(teacher)
        else:
            require_readable_attention(backbone, f'masking.source={self.source!r}')
        if self.source == 'student_ema':
            self.average = MovingAverage(backbone, 1 - self.momentum).eval()

    def train(self, mode: bool = True) -> EvolvedMasking:
        """Set the mode; the moving average stays in eval mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def update(self, backbone: nn.Module) -> None:
        """Bring the moving average up to date; to be called once per training step."""
        if self.average is None:
            return
        # every optimizer step changes the class token: it is in all that is trained
        now = backbone.cls_token.detach()
        moved = None if self._seen is None else (self._seen != now).any()
        self.average.update_parameters(backbone, moved)
        self._seen = now.clone()

    def forward(
        self,
        images: Tensor,
        backbone: nn.Module,
        attention: Tensor | None = None,
        data_samples: Sequence = (),
    ) -> tuple[PatchSplit, dict[str, Tensor]]:
        """Patches to hide, as many in each image, and the stage, to be logged.

        Args:
            images: Normalised images ``(B, 3, H, W)``.
            backbone: The student.
            attention: The teacher's, ``(B, L, L)``; read for ``source='teacher'`` only.
            data_samples: Of the batch.

        Raises:
            UserError: where the teacher gave no attention, or the samples have masks.
        """
        if data_samples and 'mask' in data_samples[0]:
            raise UserError(
                'the data samples have a mask, but the model makes its own (masking): '
                'take BlockMask, RandomMask or GridMask out of the training pipeline, '
                'or set model.masking=None'
            )
        stage = self.stage()
        if not self.uses_teacher:
            attention = summed_attention(self._network(backbone), images)
        elif attention is None:
            raise UserError(
                "masking.source='teacher' needs attention, but the teacher gave none: "
                "use OpenCLIPTeacher or TimmTeacher, or source='student_ema'"
            )
        mask = self._draw(attention, stage, global_generator(attention.device))
        # on the CPU, so that no step waits
        logs = dict(evolved_alpha=stage.alpha, evolved_clusters=stage.num_clusters)
        split = PatchSplit.from_mask(mask, self.num_masked)
        return split, {k: torch.tensor(float(v)) for k, v in logs.items()}

    def stage(self) -> EvolvedStage:
        """Alpha and number of clusters of the next batch."""
        epoch, epochs = self.progress or self._training_progress()
        return self.schedule.at(min(epoch, epochs - 1), epochs)

    def _training_progress(self) -> tuple[int, int]:
        hub = MessageHub.get_current_instance()
        # loops by iterations are one epoch long
        for now, most in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
            step, steps = hub.get_info(now), hub.get_info(most)
            if step is not None and steps is not None and steps > 1:
                return step, steps
        if not self._warned:
            MMLogger.get_current_instance().warning(
                'EvolvedMasking finds no running training: masks are those of the last '
                'epoch. Set masking.progress=(epoch, epochs) for those of another.'
            )
            self._warned = True
        return LAST_EPOCH

    def _network(self, backbone: nn.Module) -> nn.Module:
        if self.average is None:
            return backbone
        # before its first update the average is older than the student's weights; the
        # counter is read where no training step has been, which would wait for it
        updated = self._seen is not None or int(self.average.steps) > 0
        return self.average.module if updated else backbone

    def _draw(
        self, attention: Tensor, stage: EvolvedStage, generator: Generator | None
    ) -> Tensor:
        settings = dict(self.settings, generator=generator)
        return evolved_mask(attention, self.grid, self.num_masked, *stage, **settings)


def _require_pair(setting: str, value: Any, what: str, low: int) -> None:
    require(
        isinstance(value, Sequence) and len(value) == 2,
        f'{setting}={value!r} must be two numbers: {what}',
    )
    require_numbers('EvolvedMasking', setting, value, low=low, integer=True)


def _check_teacher(teacher: Any) -> None:
    start = "masking.source='teacher' needs"
    require(teacher is not None, f'{start} a teacher: set target_generator')
    network = teacher.uncached
    require(
        tuple(teacher.grid) == tuple(teacher.native_grid),
        f"{start} the teacher's own grid, {tuple(teacher.native_grid)}, but its "
        f'output_grid={tuple(teacher.grid)}: leave it out and set input_size to fit, '
        "or use masking.source='student_ema'",
    )
    require(
        network.gives_attention,
        f'{start} attention, which cannot be read from {type(network).__name__}: use '
        "another teacher, or masking.source='student_ema'",
    )
    require(
        teacher.gives_attention,
        f'{start} attention, which this CachedTeacher does not keep: set '
        'target_generator.attention=True',
    )
