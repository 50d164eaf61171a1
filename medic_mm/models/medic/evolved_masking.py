"""Evolved masks as a part of an algorithm: whose attention, at which epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import MessageHub, MMLogger
from torch import Generator, Tensor, nn

from medic_mm.checks import require_number, require_numbers
from medic_mm.errors import UserError
from medic_mm.masking import (
    PatchSplit,
    evolved_alpha,
    evolved_mask,
    evolved_num_clusters,
    masked_count,
)
from medic_mm.models.medic.moving_average import MovingAverage
from medic_mm.models.vit.attention import require_readable_attention, summed_attention
from medic_mm.randomness import global_generator
from medic_mm.registry import MODELS

SOURCES = ('teacher', 'student_ema', 'student_online')
LAST_EPOCH = (0, 1)


@dataclass(frozen=True)
class EvolvedStage:
    """What masks are made with at one step.

    Attributes:
        alpha: Weight of the parts, in (0, 1].
        num_clusters: Parts looked for.
    """

    alpha: float
    num_clusters: int

    def logs(self) -> dict[str, Tensor]:
        """To be logged beside the losses; on the CPU, so that no step waits."""
        return {
            'evolved_alpha': torch.tensor(float(self.alpha)),
            'evolved_clusters': torch.tensor(float(self.num_clusters)),
        }


@dataclass(frozen=True)
class EvolvedSchedule:
    """How masks evolve; see :mod:`medic_mm.masking.evolved`.

    Attributes:
        gamma: Alpha is ``((epoch + 1) / epochs) ** gamma``.
        clusters: Clusters in the first and in the last epoch.
        spread: Largest random addition to them, drawn for each batch.

    Raises:
        UserError: for a value out of range.
    """

    gamma: float = 0.2
    clusters: Sequence[int] = (40, 10)
    spread: int = 2

    def __post_init__(self) -> None:
        if not _is_pair(self.clusters):
            raise UserError(
                f'masking.schedule.clusters={self.clusters!r} must be two numbers: '
                'clusters in the first and in the last epoch'
            )
        name = 'masking.schedule.clusters'
        require_numbers('EvolvedMasking', name, self.clusters, low=1, integer=True)
        self.at(0, 1, Generator())  # refuses what is out of range

    @property
    def most_clusters(self) -> int:
        """The most clusters that a step can ask for."""
        return self.clusters[0] + self.spread

    def at(
        self, epoch: int, epochs: int, generator: Generator | None = None
    ) -> EvolvedStage:
        """The stage of one batch; the spread is drawn on the CPU."""
        first, last = self.clusters
        return EvolvedStage(
            evolved_alpha(epoch, epochs, self.gamma),
            evolved_num_clusters(epoch, epochs, first, last, self.spread, generator),
        )


@MODELS.register_module()
class EvolvedMasking(nn.Module):
    """Draws the masks of a batch from attention, on the device; no transform does.

    Takes the place of ``BlockMask`` and its kind in the training pipeline::

        model = dict(masking=dict(
            type='medic_mm.EvolvedMasking',
            source='teacher', mask_ratio=0.75, method='hierarchical',
            schedule=dict(gamma=0.2, clusters=(40, 10), spread=2),
            clustering=dict(spatial_bias=1.0)))

    The epoch is the running training's, which the host's message hub tells, so that a
    resumed training goes on where it stopped. A training of one epoch, which one by
    iterations is to the host, evolves from iteration to iteration. Outside a training
    masks are those of the last epoch, unless :attr:`progress` says otherwise.

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
            backbone as it is, likewise).
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
        if source not in SOURCES:
            raise UserError(
                f"masking.source={source!r} is unknown: use 'teacher', 'student_ema' "
                "or 'student_online'"
            )
        require_number(self, 'masking.momentum', momentum, above=0, below=1)
        require_number(self, 'masking.mask_ratio', mask_ratio, low=0, high=1)
        self.source = source
        self.mask_ratio = mask_ratio
        self.settings = dict(method=method, noise=noise, **(clustering or {}))
        self.schedule = _schedule(schedule or {})
        self.momentum = momentum
        if progress is not None:
            _check_progress(progress)
        self.progress = progress
        self.average: MovingAverage | None = None
        self._seen: Tensor | None = None
        self._told = False

    @property
    def uses_teacher(self) -> bool:
        """Whether the attention is the teacher's."""
        return self.source == 'teacher'

    def prepare(self, backbone: nn.Module, teacher: nn.Module | None) -> None:
        """Take the grid, make the moving average, and refuse what does not fit.

        Args:
            backbone: The student, with ``patch_resolution``.
            teacher: The frozen teacher.

        Raises:
            UserError: where grid, settings, teacher or backbone do not fit.
        """
        rows, columns = backbone.patch_resolution
        self.grid = (int(rows), int(columns))
        length = rows * columns
        self.num_masked = masked_count(length, self.mask_ratio)
        if not 0 < self.num_masked < length:
            raise UserError(
                f'masking.mask_ratio={self.mask_ratio} would hide {self.num_masked} of '
                f'{length} patches: it must hide at least 1 and at most {length - 1}'
            )
        most = self.schedule.most_clusters
        if most > length:
            raise UserError(
                f'masking.schedule asks for up to {most} clusters '
                f'(clusters[0]={self.schedule.clusters[0]} + '
                f'spread={self.schedule.spread}), but the grid of {rows}x{columns} has '
                f'{length} patches: choose clusters[0] well below that'
            )
        # a mask of one image: its checks know all settings of all methods
        trial = torch.eye(length, device='cpu')[None]
        self._draw(trial, EvolvedStage(1.0, length), Generator())
        if self.uses_teacher:
            _check_teacher(teacher)
        else:
            require_readable_attention(backbone, f'masking.source={self.source!r}')
        if self.source == 'student_ema':
            self.average = MovingAverage(backbone, 1 - self.momentum)
            self.average.eval()

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
        self, images: Tensor, backbone: nn.Module, attention: Tensor | None = None
    ) -> tuple[PatchSplit, EvolvedStage]:
        """Masks for a batch.

        Args:
            images: Normalised images ``(B, 3, H, W)``.
            backbone: The student.
            attention: The teacher's, ``(B, L, L)``; read for ``source='teacher'`` only.

        Returns:
            The patches hidden, the same number in each image, and what they were made
            with.

        Raises:
            UserError: where the teacher gave no attention.
        """
        stage = self.stage()
        if not self.uses_teacher:
            attention = summed_attention(self._network(backbone), images)
        elif attention is None:
            raise UserError(
                "masking.source='teacher' needs attention, but the teacher gave none: "
                "use OpenCLIPTeacher or TimmTeacher, or source='student_ema'"
            )
        mask = self._draw(attention, stage, global_generator(attention.device))
        return PatchSplit.from_mask(mask, self.num_masked), stage

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
        if not self._told:
            MMLogger.get_current_instance().warning(
                'No training tells EvolvedMasking the epoch: masks are those of the '
                'last one. Set masking.progress=(epoch, epochs) for those of another.'
            )
            self._told = True
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
        return evolved_mask(
            attention,
            self.grid,
            self.num_masked,
            stage.alpha,
            stage.num_clusters,
            generator=generator,
            **self.settings,
        )


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2


def _check_progress(progress: Any) -> None:
    if not _is_pair(progress):
        raise UserError(
            f'masking.progress={progress!r} must be two numbers: the epoch, from 0, '
            'and the number of epochs'
        )
    require_numbers('EvolvedMasking', 'masking.progress', progress, low=0, integer=True)
    evolved_alpha(*progress)  # refuses what is out of range


def _schedule(settings: Mapping[str, Any]) -> EvolvedSchedule:
    known = EvolvedSchedule.__dataclass_fields__
    if unknown := sorted(set(settings) - set(known)):
        raise UserError(
            f'masking.schedule has no setting {unknown[0]!r}: it has {", ".join(known)}'
        )
    return EvolvedSchedule(**settings)


def _check_teacher(teacher: nn.Module | None) -> None:
    if teacher is None:
        raise UserError(
            "masking.source='teacher' needs a teacher: set target_generator"
        )
    network = teacher.uncached
    if tuple(teacher.grid) != tuple(teacher.native_grid):
        raise UserError(
            "masking.source='teacher' needs the teacher's own grid, "
            f'{tuple(teacher.native_grid)}, but its output_grid={tuple(teacher.grid)}: '
            'leave it out and set input_size to fit, or use '
            "masking.source='student_ema'"
        )
    if not network.gives_attention:
        raise UserError(
            "masking.source='teacher' needs attention, which cannot be read from "
            f'{type(network).__name__}: use another teacher, or '
            "masking.source='student_ema'"
        )
    if not teacher.gives_attention:
        raise UserError(
            "masking.source='teacher' needs attention, which this CachedTeacher does "
            'not keep: set target_generator.attention=True'
        )
