"""MIM-HD: head-level relation distillation from a masked autoencoder, dual view."""

from __future__ import annotations

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from medic_mm.masking import PatchSplit, masked_count, random_mask
from medic_mm.models.fit import require_batch, require_fit
from medic_mm.models.mimhd.decoder import decoding_fits
from medic_mm.models.mimhd.head import relations_fit
from medic_mm.randomness import global_generator
from medic_mm.registry import MODELS


@MODELS.register_module()
class MIMHD(BaseSelfSupervisor):
    """Routes a batch: teacher -> backbone -> dual-view decoder -> head.

    Teacher and student see the whole image. With one-to-one matching and a pixel weight
    of 0 this is TinyMIM (arXiv 2301.01296): then neck and decoder are not built, what
    follows q, k and v of ``student_block`` is not run and keeps its initial weights,
    and several processes need ``find_unused_parameters=True``.

    Args:
        backbone: ``medic_mm.RelationViT``.
        head: ``medic_mm.MIMHDHead``.
        target_generator: ``medic_mm.MAETeacher``.
        neck: ``medic_mm.DualViewDecoder``; not needed without a pixel term.
        student_block: Distilled block of the student, counted from 1.
        mask_ratio: Share of patches that view 1 hides, rounded down; view 2: the rest.
        data_preprocessor: Hands on RGB. Default type: ``SelfSupDataPreprocessor``.
        init_cfg: mmengine's initialisation settings; they never reach the teacher.
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
        head = head if isinstance(head, nn.Module) else MODELS.build(head)
        if isinstance(data_preprocessor, dict):  # mmpretrain writes a type into it
            data_preprocessor = dict(data_preprocessor)
        super().__init__(
            backbone,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
            **head.needed(neck, target_generator),
        )
        self.student_block, self.mask_ratio = student_block, mask_ratio
        require_fit(self, relations_fit, decoding_fits)
        statistics = self.data_preprocessor.mean, self.data_preprocessor.std
        self._same_pixels = self.target_generator.has_statistics(*statistics)

    def init_weights(self) -> None:
        """Load the teacher, take over its mask token, initialise the student."""
        self.target_generator.init_weights()
        if self.with_neck:
            self.neck.start_from(self.target_generator)
        super().init_weights()  # may load a file over the mask token

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """All tokens of whole images: a tuple whose last is ``(B, 1 + L, D)``."""
        return self.backbone(inputs)

    def loss(self, inputs: Tensor, data_samples: list | None = None, **kwargs) -> dict:
        """Terms of normalised images ``(B, 3, H, W)``: see :meth:`MIMHDHead.loss`."""
        require_batch(inputs, self.backbone)
        targets, teacher = None, self.target_generator
        if self.head.relations:
            statistics = self.data_preprocessor.mean, self.data_preprocessor.std
            targets = teacher(inputs, *statistics, data_samples)
        tokens, student = self.backbone.forward_relations(
            inputs, self.student_block, tail=self.with_neck
        )
        if not self.with_neck:
            return self.head.loss(student, targets)
        images, *_ = self.pixel_space(inputs)
        views = self.draw_views(len(inputs), inputs.device)
        pixels = self.neck(tokens, views, teacher)
        hidden = views.mask if self.neck.views == 1 else None  # two hide all patches
        return self.head.loss(student, targets, pixels, hidden, images)

    def predict_pixels(
        self, inputs: Tensor, data_samples: list | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, L, p * p * 3)`` from the views that hide them; view 1's mask."""
        require_batch(inputs, self.backbone)
        tokens = self.extract_feat(inputs)[-1]
        views = self.draw_views(len(inputs), inputs.device)
        return self.neck(tokens, views, self.target_generator), views.mask

    def draw_views(self, batch: int, device: torch.device) -> PatchSplit:
        """Random views: ``mask`` is what view 1 hides, its complement view 2."""
        count, grid = self.num_hidden, tuple(self.backbone.patch_resolution)
        hidden = random_mask(batch, grid, count, global_generator(device))
        return PatchSplit.from_mask(hidden.to(device), count)

    @property
    def num_hidden(self) -> int:
        """Patches that view 1 hides of each image."""
        rows, columns = self.backbone.patch_resolution
        return masked_count(rows * columns, self.mask_ratio)

    def pixel_space(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images in the statistics of the frozen decoder; its mean and std (0..255)."""
        statistics = self.data_preprocessor.mean, self.data_preprocessor.std
        if self._same_pixels:
            return images, *statistics
        own = self.target_generator.statistics(images.device)
        return self.target_generator.normalise(images, *statistics), *own
