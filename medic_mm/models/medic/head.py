"""MEDiC's head: the targets, the three loss terms and the numbers beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.masking import PatchSplit, gather_tokens
from medic_mm.models.losses import normalise_target
from medic_mm.models.losses.weights import term_weights
from medic_mm.models.teachers import TeacherOutput
from medic_mm.registry import MODELS

TERMS = ('token', 'cls', 'pixel')
POSITIONS = ('visible', 'masked', 'all')


@MODELS.register_module()
class MEDiCHead(BaseModule):
    """Token distillation, class-token alignment and pixel reconstruction.

    One linear layer maps student tokens to the teacher's width; patches and class token
    share it. A term with weight 0 (or left out of ``weights``) is not computed.

    Args:
        embed_dims: Width of the student.
        target_dims: Width of the teacher's tokens.
        weights: Weight of each term, keys ``token``, ``cls``, ``pixel``. Default: the
            paper's optimum (Fig. 4), 1, 0.30 and 0.01.
        token_positions: Where the token term looks: ``'visible'``, ``'masked'`` or
            ``'all'`` patches. Default (None): visible for a sparse encoder, masked for
            a dense one, as in the released code.
        token_loss: Component called with predictions and targets ``(B, N, D)``.
        cls_loss: Component called with predictions and targets ``(B, D)``.
        pixel_loss: Component with ``loss(prediction, images, mask)``: the host's
            ``MAEPretrainHead``, which owns patches and their normalisation.
        init_cfg: The host's initialisation settings.

    Raises:
        ValueError: for an unknown or negative weight, no term at all, an unknown
            ``token_positions``, or a pixel weight without ``pixel_loss``.
    """

    def __init__(
        self,
        embed_dims: int,
        target_dims: int,
        weights: dict[str, float] | None = None,
        token_positions: str | None = None,
        token_loss: dict | None = None,
        cls_loss: dict | None = None,
        pixel_loss: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if weights is None:
            weights = dict(token=1.0, cls=0.30, pixel=0.01)
        self.weights = term_weights('MEDiCHead', weights, TERMS)
        for name, width in (('embed_dims', embed_dims), ('target_dims', target_dims)):
            require_number(self, name, width, low=1, integer=True)
        if token_positions is not None and token_positions not in POSITIONS:
            raise UserError(
                f'token_positions={token_positions!r} is unknown: use one of '
                f'{", ".join(map(repr, POSITIONS))}, or None for the default'
            )
        self.embed_dims = embed_dims
        self.target_dims = target_dims
        self.token_positions = token_positions
        if self.uses_teacher:
            self.projection = nn.Linear(embed_dims, target_dims)
        if self.uses('token'):
            token_loss = token_loss or dict(type='medic_mm.TokenDistillationLoss')
            self.token_loss = MODELS.build(token_loss)
        if self.uses('cls'):
            cls_loss = cls_loss or dict(type='medic_mm.ClsAlignmentLoss')
            self.cls_loss = MODELS.build(cls_loss)
        if self.uses('pixel'):
            if pixel_loss is None:
                raise UserError(
                    f"weights['pixel']={self.weights['pixel']} needs pixel_loss, for "
                    "example dict(type='mmpretrain.MAEPretrainHead', ...)"
                )
            self.pixel_loss = MODELS.build(pixel_loss)

    def uses(self, term: str) -> bool:
        """Whether a term has any weight."""
        return self.weights[term] > 0

    @property
    def uses_teacher(self) -> bool:
        """Whether any term needs the teacher."""
        return self.uses('token') or self.uses('cls')

    def loss(
        self,
        tokens: Tensor,
        split: PatchSplit,
        teacher: TeacherOutput | None = None,
        pixels: Tensor | None = None,
        images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of one batch.

        Args:
            tokens: Student tokens after its final norm, class token first:
                ``(B, 1 + V, D)`` from a sparse encoder, ``(B, 1 + L, D)`` from a dense
                one.
            split: Visible and hidden patches.
            teacher: The teacher's tokens on the same grid, for token and CLS terms.
            pixels: Decoder output ``(B, L, p * p * 3)``, for the pixel term.
            images: The student's normalised images ``(B, 3, H, W)`` likewise.

        Returns:
            ``loss_<term>`` (weighted, trained on), ``raw_<term>`` (unweighted, only
            logged) for each term in use; ``std_cls``, ``cos_cls``, ``cos_token``:
            spread of the student's class tokens (1 is isotropic, 0 collapsed) and mean
            teacher-student cosines, only logged.
        """
        raw: dict[str, Tensor] = {}
        health = {'std_cls': _spread(tokens[:, 0].detach())}
        if self.uses('token'):
            student, target = self._token_pairs(tokens[:, 1:], split, teacher)
            prediction = self.projection(student)
            raw['token'] = self.token_loss(prediction, target)
            health['cos_token'] = _mean_cosine(prediction, target)
        if self.uses('cls'):
            prediction = self.projection(tokens[:, 0])
            raw['cls'] = self.cls_loss(prediction, teacher.cls_token)
            health['cos_cls'] = _mean_cosine(prediction, teacher.cls_token)
        if self.uses('pixel'):
            raw['pixel'] = self.pixel_loss.loss(
                pixels.float(), images.float(), split.mask.float()
            )
        weighted = {f'loss_{k}': self.weights[k] * v for k, v in raw.items()}
        return {
            **weighted,
            **{f'raw_{k}': v.detach() for k, v in raw.items()},
            **health,
        }

    def _token_pairs(
        self, patches: Tensor, split: PatchSplit, teacher: TeacherOutput
    ) -> tuple[Tensor, Tensor]:
        """Student and teacher tokens at the positions of the token term."""
        sparse = patches.shape[1] != split.mask.shape[1]
        positions = self.token_positions or ('visible' if sparse else 'masked')
        target = teacher.patch_tokens
        if positions == 'all':
            return patches, target
        index = split.visible if positions == 'visible' else split.hidden
        student = patches if sparse else gather_tokens(patches, index)
        return student, gather_tokens(target, index)


@torch.no_grad()
def _spread(cls_tokens: Tensor) -> Tensor:
    """Standard deviation over the batch of unit-norm tokens, times sqrt(D)."""
    unit = F.normalize(cls_tokens.float(), dim=-1)
    return unit.std(0, unbiased=False).mean() * unit.shape[-1] ** 0.5


@torch.no_grad()
def _mean_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cosine_similarity(
        prediction.float(), normalise_target(target), dim=-1
    ).mean()
