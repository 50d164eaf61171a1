"""Reconstruction from two complementary views by the teacher's decoder (MIM-HD)."""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError
from medic_mm.masking import PatchSplit
from medic_mm.models.fit import equal, patch_size, require_fit, require_pixels
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
        UserError: for another number of views.
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
            UserError: where its widths are not those of this module.
        """
        if not teacher.ready:
            raise RuntimeError(
                'the teacher has no weights yet: call its init_weights() before '
                'start_from(), or the mask token would not be the pre-trained one'
            )
        token = teacher.mask_token
        widths = dict(teacher_dims=teacher.embed_dims, decoder_dims=token.shape[-1])
        for name, wanted in widths.items():
            given = getattr(self, name)
            require(
                given == wanted,
                f"{name}={given} of DualViewDecoder must equal the teacher's width, "
                f'{wanted}',
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
            UserError: where tokens and mask differ in length.
        """
        if split.mask.shape[1] + 1 != tokens.shape[1]:
            raise UserError(
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


def decoding_fits(model: nn.Module) -> None:
    """The parts of a MIMHD that the pixel term needs, and what must equal what.

    Without the term, the log says what is not trained.

    Raises:
        UserError: names the setting, its value and what would be right.
    """
    backbone, neck, teacher = model.backbone, model.neck, model.target_generator
    if not model.head.uses('pixel'):
        MMLogger.get_current_instance().info(
            'The pixel weight is 0: neck and decoder are not built, and what follows '
            'the queries, keys and values of block %d of the backbone is not trained. '
            'With several processes set find_unused_parameters=True.',
            model.student_block,
        )
        return
    require(
        neck is not None,
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
        'the decoder takes tokens after the final norm: set backbone.final_norm=True',
    )
    require_fit(
        model,
        *(
            equal(f'neck.{name}', f'the width of the {owner}', part)
            for name, owner, part in (
                ('embed_dims', 'backbone', 'backbone.embed_dims'),
                ('teacher_dims', 'teacher', 'target_generator.embed_dims'),
                ('decoder_dims', "teacher's decoder", 'target_generator.decoder_dims'),
            )
        ),
        lambda m: require_pixels(m.head.pixel_loss, m.backbone),
        equal(
            'target_generator.patch_size',
            'the patch size of the backbone',
            lambda m: patch_size(m.backbone),
        ),
    )
    wanted, given = model.head.pixel_loss.norm_pix, teacher.norm_pix
    require(
        given in (wanted, None),  # None: random weights, which suit any pixels
        f'head.pixel_loss.norm_pix={wanted} but the decoder of the teacher was '
        f'trained with norm_pix={given}: set the head to {given}, since a frozen '
        'decoder cannot change what it predicts',
    )
    hidden, (rows, columns) = model.num_hidden, backbone.patch_resolution
    require(
        0 < hidden < rows * columns,
        f'mask_ratio={model.mask_ratio} hides {hidden} of {rows * columns} patches: it '
        'must leave each view at least one patch and hide at least one from it',
    )
