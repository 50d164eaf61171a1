"""MIM-HD: head-level relation distillation from a masked autoencoder, dual view."""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.datasets.data_preprocessor import require_rgb, require_statistics
from medic_mm.masking import PatchSplit, masked_count, random_mask
from medic_mm.models.mimhd.backbone import RelationViT
from medic_mm.models.vit.fit import (
    patch_size,
    require_batch,
    require_dividing_heads,
    require_grid,
    require_pixels,
    require_teacher,
)
from medic_mm.randomness import global_generator
from medic_mm.registry import MODELS


@MODELS.register_module()
class MIMHD(BaseSelfSupervisor):
    """Routes a batch: teacher -> backbone -> dual-view decoder -> head.

    Teacher and student both see the whole image. The teacher stops inside its distilled
    block; the student hands out the same quantities of ``student_block`` and, for the
    pixel term, goes on to its final norm. With one-to-one head matching and no pixel
    term this is TinyMIM (arXiv 2301.01296).

    Where the head's pixel weight is 0, neck and decoder are not built and the student
    stops inside ``student_block`` as well: what comes after that block's queries, keys
    and values gets no gradient and keeps its initial weights. The log says so. Training
    with several processes then needs ``find_unused_parameters=True`` in the config, and
    only then.

    Args:
        backbone: ``medic_mm.RelationViT``.
        head: ``medic_mm.MIMHDHead``.
        target_generator: ``medic_mm.MAETeacher``.
        neck: ``medic_mm.DualViewDecoder``; not needed without a pixel term.
        student_block: Distilled block of the student, counted from 1.
        mask_ratio: Share of patches that view 1 hides, in (0, 1); view 2 hides the
            others. Rounded down to whole patches, the same number in every image.
        data_preprocessor: ``medic_mm.HostSamplesPreprocessor``, or the host's
            ``SelfSupDataPreprocessor``, which a dict without a type is. It must hand
            on RGB images.
        init_cfg: The host's initialisation settings; they never reach the teacher.

    Raises:
        ValueError: where the parts do not fit: block numbers, head counts, widths,
            grids, patch sizes, pixel spaces, or a decoder that is missing.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        target_generator: dict,
        neck: dict | None = None,
        student_block: int = 12,
        mask_ratio: float = 0.5,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        head = MODELS.build(head) if not isinstance(head, nn.Module) else head
        if not head.uses('pixel'):
            neck, target_generator = None, _without_decoder(target_generator)
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
        require_number(self, 'student_block', student_block, integer=True)
        self.student_block = student_block
        require_number(self, 'mask_ratio', mask_ratio, above=0, below=1)
        self.mask_ratio = mask_ratio
        self._check_relations()
        preprocessor = self.data_preprocessor
        self._same_pixels = self.target_generator.has_statistics(
            preprocessor.mean, preprocessor.std
        )
        if head.uses('pixel'):
            self._check_decoding()
            self._check_views()
        else:
            self._tell_untrained()

    def init_weights(self) -> None:
        """Load the teacher, take over its mask token, initialise the student."""
        self.target_generator.init_weights()
        if self.with_neck:
            # before the host's initialisation, which may load a file over it
            self.neck.start_from(self.target_generator)
        super().init_weights()

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """All tokens of whole images: a tuple whose last is ``(B, 1 + L, D)``."""
        return self.backbone(inputs)

    def loss(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Loss terms of one batch; see :meth:`MIMHDHead.loss` for the keys.

        Args:
            inputs: Normalised images ``(B, 3, H, W)``.
            data_samples: One per image; they are handed to the teacher only.

        Raises:
            ValueError: where the images are no batch, or not of the backbone's size.
        """
        require_batch(inputs, self.backbone)
        teacher = None
        if self.head.uses_relations:
            preprocessor = self.data_preprocessor
            teacher = self.target_generator(
                inputs, preprocessor.mean, preprocessor.std, data_samples
            )
        decodes = self.head.uses('pixel')
        tokens, student = self.backbone.forward_relations(
            inputs, self.student_block, tail=decodes
        )
        if not decodes:
            return self.head.loss(student, teacher)
        views = self.draw_views(len(inputs), inputs.device)
        pixels = self.neck(tokens, views, self.target_generator)
        # one view predicts only what it hides; two predict every patch once
        hidden = views.mask if self.neck.views == 1 else None
        images, *_ = self.pixel_space(inputs)
        return self.head.loss(student, teacher, pixels, hidden, images)

    def predict_pixels(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, L, p * p * 3)``, and what view 1 hides, bool ``(B, L)``.

        With two views each patch is predicted from the one that hides it. The pixels
        are those of :meth:`pixel_space`.
        """
        require_batch(inputs, self.backbone)
        tokens = self.backbone(inputs)[-1]
        views = self.draw_views(len(inputs), inputs.device)
        return self.neck(tokens, views, self.target_generator), views.mask

    def draw_views(self, batch: int, device: torch.device) -> PatchSplit:
        """Random views: ``mask`` is what view 1 hides, its complement view 2."""
        hidden = random_mask(
            batch,
            tuple(self.backbone.patch_resolution),
            self.num_hidden,
            global_generator(device),
        )
        return PatchSplit.from_mask(hidden.to(device), self.num_hidden)

    @property
    def num_hidden(self) -> int:
        """Patches that view 1 hides of each image."""
        rows, columns = self.backbone.patch_resolution
        return masked_count(rows * columns, self.mask_ratio)

    def pixel_space(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images as the frozen decoder predicts them, with their mean and std.

        The decoder predicts pixels normalised by the teacher's statistics; the target
        of the pixel term follows it where the student's differ.

        Args:
            images: Normalised by the student's preprocessor, ``(B, 3, H, W)``.

        Returns:
            The images, and mean and std ``(3, 1, 1)`` on the scale of 0 to 255.
        """
        mean, std = self.data_preprocessor.mean, self.data_preprocessor.std
        teacher = self.target_generator
        if self._same_pixels:
            return images, mean, std
        return teacher.normalise(images, mean, std), *teacher.statistics(images.device)

    def _check_relations(self) -> None:
        backbone, head, teacher = self.backbone, self.head, self.target_generator
        require(
            isinstance(backbone, RelationViT),
            f'backbone.type={type(backbone).__name__} does not hand out queries, keys '
            "and values: use 'medic_mm.RelationViT'",
        )
        require(
            1 <= self.student_block <= backbone.num_layers,
            f'student_block={self.student_block} is out of range: the backbone has '
            f'blocks 1 to {backbone.num_layers}',
        )
        require(
            teacher is not None,
            'MIMHD distils from a teacher: set target_generator, for example '
            "dict(type='medic_mm.MAETeacher', ...)",
        )
        require_teacher(teacher, relations=True, fitting="'medic_mm.MAETeacher'")
        require_rgb(self.data_preprocessor)
        require_statistics(self.data_preprocessor)
        require_dividing_heads(self)
        heads = backbone.num_heads(self.student_block)
        require(
            head.student_heads == heads,
            f'head.student_heads={head.student_heads} must equal the number of heads '
            f'of block {self.student_block} of the backbone, {heads}',
        )
        require(
            head.teacher_heads == teacher.num_heads,
            f'head.teacher_heads={head.teacher_heads} must equal the number of heads '
            f'of the teacher, {teacher.num_heads}',
        )
        head.check_widths(backbone.embed_dims, teacher.embed_dims)
        grid = tuple(backbone.patch_resolution)
        require_grid(
            teacher,
            grid,
            resizes=False,
            otherwise="relations need the teacher's grid, which is square: use a "
            'square backbone.img_size',
        )
        length = 1 + grid[0] * grid[1]
        require(
            head.num_tokens == length,
            f'head.num_tokens={head.num_tokens} must equal the number of tokens of the '
            f'backbone with its class token, {length}',
        )

    def _check_decoding(self) -> None:
        backbone, neck, teacher = self.backbone, self.neck, self.target_generator
        require(
            self.with_neck,
            "the pixel term needs a decoder: set neck=dict(type='medic_mm."
            "DualViewDecoder', ...), or head.weights.pixel=0",
        )
        require(
            teacher.with_decoder,
            'the pixel term needs the decoder of the teacher: set '
            'target_generator.decoder=dict(embed_dims=512, depth=8, num_heads=16) as '
            'its weights have it, or head.weights.pixel=0',
        )
        require(
            backbone.final_norm,
            'the decoder takes tokens after the final norm: set '
            'backbone.final_norm=True',
        )
        for name, wanted, owner in (
            ('embed_dims', backbone.embed_dims, 'backbone'),
            ('teacher_dims', teacher.embed_dims, 'teacher'),
            ('decoder_dims', teacher.decoder_dims, "teacher's decoder"),
        ):
            given = getattr(neck, name)
            require(
                given == wanted,
                f'neck.{name}={given} must equal the width of the {owner}, {wanted}',
            )
        require_pixels(self.head.pixel_loss, backbone)
        patch = patch_size(backbone)
        require(
            teacher.patch_size == patch,
            f'target_generator.patch_size={teacher.patch_size} must equal the patch '
            f'size of the backbone, {patch}',
        )
        wanted, given = self.head.pixel_loss.norm_pix, teacher.norm_pix
        require(
            given in (wanted, None),  # None: random weights, which suit any pixels
            f'head.pixel_loss.norm_pix={wanted} but the decoder of the teacher was '
            f'trained with norm_pix={given}: set the head to {given}, since a frozen '
            'decoder cannot change what it predicts',
        )

    def _check_views(self) -> None:
        rows, columns = self.backbone.patch_resolution
        require(
            0 < self.num_hidden < rows * columns,
            f'mask_ratio={self.mask_ratio} hides {self.num_hidden} of '
            f'{rows * columns} patches: it must leave each view at least one patch '
            'and hide at least one from it',
        )

    def _tell_untrained(self) -> None:
        MMLogger.get_current_instance().info(
            'The pixel weight is 0: neck and decoder are not built, and what follows '
            'the queries, keys and values of block %d of the backbone is not trained. '
            'With several processes set find_unused_parameters=True.',
            self.student_block,
        )


def _without_decoder(teacher: dict | nn.Module) -> dict | nn.Module:
    """The teacher's settings with its encoder only."""
    if isinstance(teacher, dict) and teacher.get('decoder') is not None:
        return {**teacher, 'decoder': None}
    return teacher
