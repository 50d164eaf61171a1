"""MEDiC: masked distillation from a frozen CLIP encoder (arXiv 2603.29009)."""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.masking import PatchSplit
from medic_mm.models.backbones import MaskedViT
from medic_mm.models.teachers import TeacherOutput
from medic_mm.registry import MODELS


@MODELS.register_module()
class MEDiC(BaseSelfSupervisor):
    """Routes a batch: teacher -> masked backbone -> pixel decoder -> head.

    Masks come with the data samples (``BlockMask``, ``RandomMask``, ``GridMask`` in the
    pipeline), or from ``masking``. Parts that nothing uses are not built: the decoder
    without a pixel term; the teacher without token and CLS terms, unless masks are made
    from its attention.

    Args:
        backbone: ``medic_mm.MaskedViT``, or the host's ``BEiTPretrainViT`` for a dense
            encoding with shared relative position bias.
        head: ``medic_mm.MEDiCHead``.
        neck: Pixel decoder, called with tokens and restore indices: the host's
            ``MAEPretrainDecoder``.
        target_generator: A frozen teacher.
        masking: ``medic_mm.EvolvedMasking``: makes the masks from attention, in place
            of a mask transform.
        data_preprocessor: ``medic_mm.HostSamplesPreprocessor``, or the host's
            ``SelfSupDataPreprocessor``.
        init_cfg: The host's initialisation settings; they never reach the teacher.

    Raises:
        ValueError: where the parts do not fit: widths, grids, or a token loss at
            positions that the encoding does not predict.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        target_generator: dict | None = None,
        masking: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        head = MODELS.build(head) if not isinstance(head, nn.Module) else head
        logger = MMLogger.get_current_instance()
        if neck is not None and not head.uses('pixel'):
            logger.info('The pixel weight is 0: the decoder is not built.')
            neck = None
        masking = _build(masking)
        masks_by_teacher = masking is not None and masking.uses_teacher
        if target_generator is not None and not (head.uses_teacher or masks_by_teacher):
            logger.info('Token and CLS weights are 0: the teacher is not built.')
            target_generator = None
        super().__init__(
            backbone=_build(backbone),
            neck=_build(neck),
            head=head,
            target_generator=_build(target_generator),
            data_preprocessor=_build(data_preprocessor),
            init_cfg=init_cfg,
        )
        self.sparse = getattr(self.backbone, 'encoding', 'dense') == 'sparse'
        self.mask_token = None
        if isinstance(self.backbone, MaskedViT) and not self.sparse:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, self.backbone.embed_dims))
        self._check_parts()
        self.masking = masking
        if masking is not None:
            masking.prepare(self.backbone, self.target_generator)

    def init_weights(self) -> None:
        """Initialise the student; the teacher loads its own weights."""
        super().init_weights()
        if self.mask_token is not None:
            trunc_normal_(self.mask_token, std=0.02)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """All tokens of unmasked images: a tuple whose last is ``(B, 1 + L, D)``."""
        return self.backbone(inputs, mask=None)

    def loss(
        self, inputs: Tensor, data_samples: list[DataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Loss terms of one batch; see :meth:`MEDiCHead.loss` for the keys.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            data_samples: One per image, each with ``mask``, bool ``(gh, gw)``, unless
                the model has ``masking``.
        """
        if self.masking is not None and self.training:
            self.masking.update(self.backbone)
        teacher = None
        if self.with_target_generator:
            teacher = self.ask(self.target_generator, inputs, data_samples)
        split, logs = self.hide(inputs, data_samples, teacher)
        tokens = self.encode(inputs, split)
        pixels = self.decode(tokens, split) if self.with_neck else None
        return {**self.head.loss(tokens, split, teacher, pixels, inputs), **logs}

    def predict_pixels(
        self, inputs: Tensor, data_samples: list[DataSample]
    ) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, L, p * p * 3)`` of all patches, and the mask ``(B, L)``."""
        teacher = None
        if self.masking is not None and self.masking.uses_teacher:
            # a cache holds training images only: ask the teacher behind it
            network = getattr(self.target_generator, 'teacher', self.target_generator)
            teacher = self.ask(network, inputs, data_samples)
        split, _ = self.hide(inputs, data_samples, teacher)
        return self.decode(self.encode(inputs, split), split), split.mask

    def ask(
        self, teacher: nn.Module, inputs: Tensor, data_samples: list[DataSample]
    ) -> TeacherOutput:
        """One pass of the teacher, with attention where masks are made from it."""
        attention = self.masking is not None and self.masking.uses_teacher
        mean, std = self.data_preprocessor.mean, self.data_preprocessor.std
        return teacher(inputs, mean, std, data_samples, attention=attention)

    def hide(
        self,
        inputs: Tensor,
        data_samples: list[DataSample],
        teacher: TeacherOutput | None = None,
    ) -> tuple[PatchSplit, dict[str, Tensor]]:
        """Visible and hidden patches of a batch, and what is logged about them."""
        if self.masking is None:
            return self.split(data_samples, inputs.device), {}
        if data_samples and 'mask' in data_samples[0]:
            raise ValueError(
                'the data samples have a mask, but the model makes its own (masking): '
                'take BlockMask, RandomMask or GridMask out of the training pipeline, '
                'or set model.masking=None'
            )
        attention = None if teacher is None else teacher.attention
        split, stage = self.masking(inputs, self.backbone, attention)
        return split, stage.logs()

    def split(self, data_samples: list[DataSample], device: torch.device) -> PatchSplit:
        """Visible and hidden patches of a batch, from its samples' masks."""
        if 'mask' not in data_samples[0]:
            raise ValueError(
                'the data samples have no mask: put BlockMask, RandomMask or GridMask '
                'before PackInputs in the training pipeline, or let the model make '
                "masks (masking=dict(type='medic_mm.EvolvedMasking'))"
            )
        return PatchSplit.from_samples([s.mask for s in data_samples], device)

    def encode(self, images: Tensor, split: PatchSplit) -> Tensor:
        """Masked images to tokens: ``(B, 1 + V, D)`` if sparse, else ``1 + L``."""
        if isinstance(self.backbone, MaskedViT):
            return self.backbone(images, split, self.mask_token)[-1]
        return self.backbone(images, split.mask)[-1]

    def decode(self, tokens: Tensor, split: PatchSplit) -> Tensor:
        """Tokens to pixels ``(B, L, p * p * 3)``.

        A dense encoder has a token at every place already: the decoder adds none.
        """
        if self.sparse:
            return self.neck(tokens, split.restore)
        length = split.mask.shape[1]
        identity = torch.arange(length, device=tokens.device)
        return self.neck(tokens, identity.expand(len(tokens), -1))

    def _check_parts(self) -> None:
        backbone, head = self.backbone, self.head
        grid = tuple(backbone.patch_resolution)
        _require(
            head.embed_dims == backbone.embed_dims,
            f'head.embed_dims={head.embed_dims} must equal the width of the backbone, '
            f'{backbone.embed_dims}',
        )
        if self.sparse and head.uses('token'):
            _require(
                head.token_positions in (None, 'visible'),
                f'head.token_positions={head.token_positions!r} has no prediction with '
                "encoding='sparse', which sees visible patches only: use 'visible', or "
                "encoding='dense'",
            )
        teacher = self.target_generator
        if head.uses_teacher:
            _require(
                teacher is not None,
                'the token and CLS terms need a teacher: set target_generator',
            )
            _require(
                head.target_dims == teacher.embed_dims,
                f'head.target_dims={head.target_dims} must equal the width of the '
                f'teacher, {teacher.embed_dims}',
            )
        if teacher is not None:
            _require(
                self.data_preprocessor._enable_normalize,
                'the teacher needs the mean and std that normalised its input: set '
                'them in data_preprocessor',
            )
            _require(
                tuple(teacher.grid) == grid,
                f'the teacher has a grid of {tuple(teacher.grid)} patches but the '
                f'student one of {grid}: set target_generator.input_size, or '
                f'target_generator.output_grid={grid} to resize its tokens',
            )
        if head.uses('pixel'):
            _require(
                self.with_neck, 'the pixel term needs a decoder: set neck, or weight 0'
            )
            _require(
                self.neck.num_patches == grid[0] * grid[1],
                f'neck.num_patches={self.neck.num_patches} must equal the number of '
                f'patches of the backbone, {grid[0] * grid[1]}',
            )


def _build(part: dict | nn.Module | None) -> nn.Module | None:
    return MODELS.build(part) if isinstance(part, dict) else part


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
