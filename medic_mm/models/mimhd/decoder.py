"""Reconstruction from two complementary views by the teacher's decoder (MIM-HD)."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.masking import PatchSplit
from medic_mm.models.teachers import MAETeacher
from medic_mm.registry import MODELS

XAVIER = dict(type='Xavier', layer='Linear', distribution='uniform')


@MODELS.register_module()
class DualViewDecoder(BaseModule):
    """Fill two complementary views with mask tokens and decode both in one call.

    The student's tokens of the whole image are brought to the teacher's width and
    through the teacher's own embedding. View 1 hides the patches of the mask, view 2
    all others, and each patch is predicted in the view that hides it: every patch once,
    at any mask ratio. The class token is in both views. What is trained here is the
    adapter and the mask token; the decoder is the teacher's and stays frozen.

    Source: MIM-HD, equations 8 to 11.

    Args:
        embed_dims: Width D of the student.
        teacher_dims: Width of the teacher's encoder.
        decoder_dims: Width of the teacher's decoder.
        views: 2, or 1 for the ablation: then only the patches of the mask are hidden,
            and only they have a prediction to be trained.
        init_cfg: How the adapter starts. Default: Xavier, as in MAE.

    Raises:
        ValueError: for another number of views.
    """

    def __init__(
        self,
        embed_dims: int,
        teacher_dims: int,
        decoder_dims: int,
        views: int = 2,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg or dict(XAVIER))
        for name, width in (
            ('embed_dims', embed_dims),
            ('teacher_dims', teacher_dims),
            ('decoder_dims', decoder_dims),
        ):
            require_number(self, name, width, low=1, integer=True)
        require(
            views in (1, 2) and isinstance(views, int) and not isinstance(views, bool),
            f'views={views!r} of DualViewDecoder must be 1 or 2',
        )
        same = embed_dims == teacher_dims
        self.adapter = nn.Identity() if same else nn.Linear(embed_dims, teacher_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dims))
        self.embed_dims = embed_dims
        self.teacher_dims = teacher_dims
        self.decoder_dims = decoder_dims
        self.views = views

    @torch.no_grad()
    def start_from(self, teacher: MAETeacher) -> None:
        """Copy the mask token of a teacher that has its weights.

        Raises:
            RuntimeError: where the teacher has no weights or no decoder.
            ValueError: where its widths are not those of this module.
        """
        if not teacher.ready:
            raise RuntimeError(
                'the teacher has no weights yet: call its init_weights() before '
                'start_from(), or the mask token would not be the pre-trained one'
            )
        token = teacher.mask_token
        for setting, own, wanted in (
            ('teacher_dims', self.teacher_dims, teacher.embed_dims),
            ('decoder_dims', self.decoder_dims, token.shape[-1]),
        ):
            if own != wanted:
                raise ValueError(
                    f"{setting}={own} of DualViewDecoder must equal the teacher's "
                    f'width, {wanted}'
                )
        self.mask_token.copy_(token)

    def forward(self, tokens: Tensor, split: PatchSplit, teacher: MAETeacher) -> Tensor:
        """Predict pixels.

        Args:
            tokens: The student's tokens ``(B, 1 + L, D)`` after its final norm, class
                token first.
            split: Which patches view 1 hides.
            teacher: Owner of the decoder.

        Returns:
            ``(B, L, patch_size ** 2 * 3)``, row-major. With ``views=1``, predictions
            at patches that are not in ``split.mask`` were made from the patch itself.

        Raises:
            ValueError: where tokens and mask differ in length.
        """
        if split.mask.shape[1] + 1 != tokens.shape[1]:
            raise ValueError(
                f'the mask covers {split.mask.shape[1]} patches but there are '
                f'{tokens.shape[1]} tokens, which must be a class token and one for '
                'each patch'
            )
        embedded = teacher.embed_for_decoder(self.adapter(tokens))
        cls_token, patches = embedded[:, :1], embedded[:, 1:]
        hidden = split.mask.unsqueeze(-1)  # (B, L, 1)
        mask_token = self.mask_token.to(patches.dtype)
        first = torch.cat([cls_token, torch.where(hidden, mask_token, patches)], 1)
        if self.views == 1:
            return teacher.decode(first)
        second = torch.cat([cls_token, torch.where(hidden, patches, mask_token)], 1)
        of_first, of_second = teacher.decode(torch.cat([first, second])).chunk(2)
        return torch.where(hidden, of_first, of_second)
