"""MEDiC: masked distillation from a frozen CLIP encoder (arXiv 2603.29009)."""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.selfsup import BaseSelfSupervisor, BEiTPretrainViT
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.checks import require
from medic_mm.datasets.data_preprocessor import require_rgb, require_statistics
from medic_mm.masking import PatchSplit, gather_tokens
from medic_mm.models.medic.backbone import MaskedViT
from medic_mm.models.teachers import TeacherOutput
from medic_mm.models.vit.arguments import loads_a_file
from medic_mm.models.vit.fit import (
    require_batch,
    require_decoder,
    require_dividing_heads,
    require_grid,
    require_pixels,
    require_teacher,
    teacher_setting,
)
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
        replace_mask_tokens: For a dense encoding: the decoder puts its own mask token
            at hidden places, as the released code does. Default: it gets the encoder's
            tokens of all places. A sparse encoding has no others.
        data_preprocessor: ``medic_mm.HostSamplesPreprocessor``, or the host's
            ``SelfSupDataPreprocessor``, which a dict without a type is. It must hand
            on RGB images.
        init_cfg: The host's initialisation settings; they never reach the teacher.

    Raises:
        UserError: where the parts do not fit: widths, grids, BGR images, or a token
            loss at positions that the encoding does not predict.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        target_generator: dict | None = None,
        masking: dict | nn.Module | None = None,
        replace_mask_tokens: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        head = MODELS.build(head) if not isinstance(head, nn.Module) else head
        logger = MMLogger.get_current_instance()
        if neck is not None and not head.uses('pixel'):
            logger.info('The pixel weight is 0: the decoder is not built.')
            neck = None
        masking = MODELS.build(masking) if isinstance(masking, dict) else masking
        masks_by_teacher = masking is not None and masking.uses_teacher
        if target_generator is not None and not (head.uses_teacher or masks_by_teacher):
            logger.info('Token and CLS weights are 0: the teacher is not built.')
            target_generator = None
        if isinstance(data_preprocessor, dict):
            # mmpretrain writes its default type into it
            data_preprocessor = dict(data_preprocessor)
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            target_generator=target_generator,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.sparse = getattr(self.backbone, 'encoding', 'dense') == 'sparse'
        self.replace_mask_tokens = replace_mask_tokens
        self._check_parts(masks_by_teacher)
        self.mask_token = None
        if isinstance(self.backbone, MaskedViT) and not self.sparse:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, self.backbone.embed_dims))
        self.masking = masking
        if masking is not None:
            masking.prepare(self.backbone, self.target_generator)

    def init_weights(self) -> None:
        """Initialise the student; the teacher loads its own weights."""
        super().init_weights()
        if self.mask_token is not None and not loads_a_file(self.init_cfg):
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
        require_batch(inputs, self.backbone)
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
        require_batch(inputs, self.backbone)
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

        A dense encoder has a token at every place already: the decoder adds none,
        unless it is to replace those of hidden places.
        """
        if self.replace_mask_tokens and not self.sparse:
            seen = gather_tokens(tokens[:, 1:], split.visible)
            tokens = torch.cat([tokens[:, :1], seen], dim=1)
        if self.sparse or self.replace_mask_tokens:
            return self.neck(tokens, split.restore)
        length = split.mask.shape[1]
        identity = torch.arange(length, device=tokens.device)
        return self.neck(tokens, identity.expand(len(tokens), -1))

    def _check_parts(self, masks_by_teacher: bool) -> None:
        backbone, head, teacher = self.backbone, self.head, self.target_generator
        require(
            isinstance(backbone, (MaskedViT, BEiTPretrainViT)),
            f'backbone.type={type(backbone).__name__} does not take a mask: use '
            "'medic_mm.MaskedViT' or 'mmpretrain.BEiTPretrainViT'",
        )
        require_rgb(self.data_preprocessor)
        require_dividing_heads(self)
        require(
            head.embed_dims == backbone.embed_dims,
            f'head.embed_dims={head.embed_dims} must equal the width of the backbone, '
            f'{backbone.embed_dims}',
        )
        if self.sparse and head.uses('token'):
            require(
                head.token_positions in (None, 'visible'),
                f'head.token_positions={head.token_positions!r} has no prediction with '
                "encoding='sparse', which sees visible patches only: use 'visible', or "
                "encoding='dense'",
            )
        if head.uses('pixel'):
            require(
                self.with_neck, 'the pixel term needs a decoder: set neck, or weight 0'
            )
            require_pixels(head.pixel_loss, backbone)
            require_decoder(self.neck, backbone)
        if head.uses_teacher:
            require(
                teacher is not None,
                'the token and CLS terms need a teacher: set target_generator',
            )
        if teacher is not None:
            self._check_teacher(masks_by_teacher)

    def _check_teacher(self, masks_by_teacher: bool) -> None:
        head, teacher = self.head, self.target_generator
        require_teacher(
            teacher,
            relations=False,
            fitting="'medic_mm.OpenCLIPTeacher' or 'medic_mm.TimmTeacher'",
        )
        require_statistics(self.data_preprocessor)
        require_grid(
            teacher,
            tuple(self.backbone.patch_resolution),
            resizes=not masks_by_teacher,
            otherwise="its images are square: set masking.source='student_ema' and "
            f'{teacher_setting(teacher, "output_grid")}',
        )
        if head.uses_teacher:
            require(
                head.target_dims == teacher.embed_dims,
                f'head.target_dims={head.target_dims} must equal the width of the '
                f'teacher, {teacher.embed_dims}',
            )
