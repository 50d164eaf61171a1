"""MEDiC: masked distillation from a frozen CLIP encoder (arXiv 2603.29009)."""

from __future__ import annotations

from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from medic_mm.masking import PatchSplit
from medic_mm.models import fit
from medic_mm.models.medic.backbone import decode, encode, mask_token, takes_masks
from medic_mm.models.medic.evolved_masking import given_masks
from medic_mm.models.medic.head import FITS
from medic_mm.models.teachers import TeacherOutput
from medic_mm.models.vit.arguments import loads_a_file
from medic_mm.registry import MODELS


@MODELS.register_module()
class MEDiC(BaseSelfSupervisor):
    """Routes a batch: teacher -> masked backbone -> pixel decoder -> head.

    Masks come with the data samples (a mask transform in the pipeline), or from
    ``masking``. A decoder or teacher that no term and no mask uses is not built.

    Args:
        backbone: ``medic_mm.MaskedViT``, or mmpretrain's ``BEiTPretrainViT`` for a
            dense encoding with shared relative position bias.
        head: ``medic_mm.MEDiCHead``.
        neck: Pixel decoder, called with tokens and restore indices: mmpretrain's
            ``MAEPretrainDecoder``.
        target_generator: A frozen teacher.
        masking: ``medic_mm.EvolvedMasking``: makes the masks from attention, in place
            of a mask transform.
        replace_mask_tokens: For a dense encoding: the decoder puts its own mask token
            at hidden places, as the released code does. Default: it gets the encoder's
            tokens of all places. A sparse encoding has no others.
        data_preprocessor: ``medic_mm.HostSamplesPreprocessor``, or mmpretrain's
            ``SelfSupDataPreprocessor``, the default type. It must give RGB images.
        init_cfg: mmengine's initialisation settings; they never reach the teacher.

    Raises:
        UserError: where the parts do not fit; the rules stand next to the parts.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict | nn.Module,
        neck: dict | None = None,
        target_generator: dict | None = None,
        masking: dict | nn.Module | None = None,
        replace_mask_tokens: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        head = MODELS.build(head) if isinstance(head, dict) else head
        masking = MODELS.build(masking) if isinstance(masking, dict) else masking
        self.masks_by_teacher = masking is not None and masking.uses_teacher
        if isinstance(data_preprocessor, dict):  # mmpretrain writes a type into it
            data_preprocessor = dict(data_preprocessor)
        super().__init__(
            backbone,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
            **head.needed(neck, target_generator, self.masks_by_teacher),
        )
        self.replace_mask_tokens = replace_mask_tokens
        fit.require_fit(self, takes_masks, fit.hands_on_rgb, fit.require_dividing_heads)
        fit.require_fit(self, *FITS)
        self.mask_token = mask_token(self.backbone)
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

    def loss(self, inputs: Tensor, data_samples: list, **kwargs) -> dict[str, Tensor]:
        """Loss terms of normalised images; see :meth:`MEDiCHead.loss` for the keys."""
        fit.require_batch(inputs, self.backbone)
        if self.masking is not None and self.training:
            self.masking.update(self.backbone)
        split, logs, teacher = self.mask(inputs, data_samples, self.target_generator)
        tokens = encode(self, inputs, split)
        pixels = decode(self, tokens, split) if self.with_neck else None
        return {**self.head.loss(tokens, split, teacher, pixels, inputs), **logs}

    def predict_pixels(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, ...]:
        """Pixels ``(B, L, p * p * 3)`` of all patches, and the mask ``(B, L)``."""
        fit.require_batch(inputs, self.backbone)
        teacher = None
        if self.masks_by_teacher:  # without its cache, which has training images only
            teacher = self.target_generator.uncached
        split, *_ = self.mask(inputs, data_samples, teacher)
        return decode(self, encode(self, inputs, split), split), split.mask

    def mask(
        self, inputs: Tensor, data_samples: list, teacher: nn.Module | None
    ) -> tuple[PatchSplit, dict[str, Tensor], TeacherOutput | None]:
        """What is hidden, what is logged about it, and the teacher's tokens."""
        seen, by_teacher = None, self.masks_by_teacher
        if teacher is not None:
            mean, std = self.data_preprocessor.mean, self.data_preprocessor.std
            seen = teacher(inputs, mean, std, data_samples, attention=by_teacher)
        if self.masking is None:
            return given_masks(data_samples, inputs.device), {}, seen
        attention = None if seen is None else seen.attention
        return *self.masking(inputs, self.backbone, attention, data_samples), seen
