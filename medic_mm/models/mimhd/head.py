"""MIM-HD's head: relation terms over matched heads, the pixel term, their health."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require_number
from medic_mm.errors import UserError
from medic_mm.models.losses import relation_cross_entropy, relation_kl, relation_mse
from medic_mm.models.losses.weights import term_weights
from medic_mm.models.mimhd.health import head_similarity, used_heads, weight_entropy
from medic_mm.models.mimhd.matching import HeadMatching, Matched
from medic_mm.models.vit.qkv import QKV
from medic_mm.registry import MODELS

DISTANCES = {
    'kl': relation_kl,
    'cross_entropy': relation_cross_entropy,
    'mse': relation_mse,
}
REDUCTIONS = ('mean', 'sum')
PIXEL = 'pixel'


@MODELS.register_module()
class MIMHDHead(BaseModule):
    """Distillation of token relations, head by head, and dual-view pixels.

    Each relation has a matching of its own, with own weights W. A term of weight 0 is
    neither built nor computed. Source: MIM-HD Eq. 7, 10 and 11.

    Args:
        student_heads: Number M2 of heads of the student's distilled block.
        teacher_heads: Number M1 of heads of the teacher's.
        num_tokens: Number N of tokens of both sides with the class token, 1 + patches.
        relations: Pairs of q, k and v. Default: ``('qk', 'vv')``.
        matching: Which student head learns from which teacher heads; gets both numbers
            of heads from here. Default: ``medic_mm.AdaptiveMatching``.
        distance: ``'kl'`` (teacher to student), ``'cross_entropy'`` or ``'mse'``.
        weights: Weight of each relation and of ``pixel`` (alpha of Eq. 11, not given in
            the paper). Default: 1 for each relation and 0.1.
        include_cls: Relations with the class token's row and column.
        head_reduction: ``'mean'`` over student heads, or ``'sum'``, the paper's Eq. 7
            literally, which is larger by the number of heads.
        pixel_loss: Component with ``loss(prediction, images, mask)``. Default: the
            host's ``MAEPretrainHead`` with ``norm_pix=True`` and patches of 16.
        init_cfg: The host's initialisation settings.

    Raises:
        ValueError: for an unknown relation, distance or reduction, and for weights that
            are unknown, missing, negative or all 0.
    """

    def __init__(
        self,
        student_heads: int,
        teacher_heads: int,
        num_tokens: int,
        relations: Sequence[str] = ('qk', 'vv'),
        matching: dict | None = None,
        distance: str = 'kl',
        weights: dict[str, float] | None = None,
        include_cls: bool = True,
        head_reduction: str = 'mean',
        pixel_loss: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        relations = _check_relations(relations)
        _check_choice('distance', distance, DISTANCES)
        _check_choice('head_reduction', head_reduction, REDUCTIONS)
        self.weights = _check_weights(weights, relations)
        for name, value, low in (
            ('student_heads', student_heads, 1),
            ('teacher_heads', teacher_heads, 1),
            ('num_tokens', num_tokens, 2),
        ):
            require_number(self, name, value, low=low, integer=True)
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads
        self.num_tokens = num_tokens
        self.relations = tuple(name for name in relations if self.uses(name))
        self.distance = DISTANCES[distance]
        self.include_cls = include_cls
        self.head_reduction = head_reduction
        settings = dict(
            type='medic_mm.AdaptiveMatching',
            student_heads=student_heads,
            teacher_heads=teacher_heads,
        )
        settings.update(matching or {})
        self.matchings = nn.ModuleDict(
            {name: MODELS.build(dict(settings)) for name in self.relations}
        )
        if self.uses(PIXEL):
            self.pixel_loss = MODELS.build(_complete_pixel_loss(pixel_loss))

    def uses(self, term: str) -> bool:
        """Whether ``'pixel'`` or a relation has any weight."""
        return self.weights.get(term, 0.0) > 0

    @property
    def uses_relations(self) -> bool:
        """Whether any relation has weight."""
        return bool(self.relations)

    def check_widths(self, student: int, teacher: int) -> None:
        """Refuse widths of the distilled blocks that the matching cannot work with.

        Raises:
            ValueError: says which.
        """
        for matching in self.matchings.values():
            matching.check_widths(student, teacher)

    def loss(
        self,
        student: QKV | None,
        teacher: QKV | None,
        pixels: Tensor | None = None,
        hidden: Tensor | None = None,
        images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of one batch.

        Args:
            student: Of the student's distilled block, ``(B, M2, N, d)`` each, class
                token first; not read without relations.
            teacher: Likewise of the teacher's, ``(B, M1, N, d')`` each.
            pixels: Decoder output ``(B, L, p * p * 3)``, for the pixel term.
            hidden: bool ``(B, L)``, the patches that count; None for all of them.
            images: The student's normalised images ``(B, 3, H, W)``, for the pixel
                term.

        Returns:
            ``loss_<term>`` (weighted, trained on) and ``raw_<term>`` (unweighted, only
            logged) for each term in use. For each relation, only logged:
            ``entropy_<relation>``, mean entropy of W's rows in nats;
            ``used_heads_<relation>``, effective number of teacher heads in use (both
            absent where the matching has no W); ``cos_student_<relation>``, mean cosine
            of the student's heads (absent for a single head).

        Raises:
            ValueError: where heads or tokens are not as declared.
        """
        raw: dict[str, Tensor] = {}
        health: dict[str, Tensor] = {}
        if self.uses_relations and not self.include_cls:
            student, teacher = student.without_cls(), teacher.without_cls()
        for name in self.relations:
            matching = self.matchings[name]
            matched = matching(student.pair(name), teacher.pair(name), self.distance)
            raw[name] = self._reduce(matched.loss, matching)
            health.update(_health(name, matched))
        if self.uses(PIXEL):
            mask = None if hidden is None else hidden.float()
            raw[PIXEL] = self.pixel_loss.loss(pixels.float(), images.float(), mask)
        return {
            **{f'loss_{name}': self.weights[name] * v for name, v in raw.items()},
            **{f'raw_{name}': v.detach() for name, v in raw.items()},
            **health,
        }

    def _reduce(self, loss: Tensor, matching: HeadMatching) -> Tensor:
        if self.head_reduction == 'sum':
            return loss * matching.matched_heads
        return loss


def _health(name: str, matched: Matched) -> dict[str, Tensor]:
    numbers = {}
    if matched.weights is not None:
        numbers[f'entropy_{name}'] = weight_entropy(matched.weights)
        numbers[f'used_heads_{name}'] = used_heads(matched.weights)
    if matched.student_logits.shape[1] > 1:
        numbers[f'cos_student_{name}'] = head_similarity(matched.student_logits)
    return numbers


def _complete_pixel_loss(settings: dict | None) -> dict:
    """The host's pixel head with MAE's squared error where no loss is named."""
    if settings is None:
        settings = dict(type='mmpretrain.MAEPretrainHead', norm_pix=True, patch_size=16)
    if str(settings['type']).endswith('MAEPretrainHead') and 'loss' not in settings:
        squared = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2')
        return dict(settings, loss=squared)
    return settings


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(
            f'{name}={value!r} of MIMHDHead is unknown: use one of '
            f'{", ".join(map(repr, choices))}'
        )


def _check_relations(relations: Sequence[str]) -> tuple[str, ...]:
    # a word such as 'qk' is a sequence of strings too
    names = (relations,) if isinstance(relations, str) else tuple(relations)
    fitting = all(len(name) == 2 and set(name) <= set('qkv') for name in names)
    if not names or not fitting or len(set(names)) < len(names):
        raise UserError(
            f'relations={names} of MIMHDHead does not fit: name each pair of the '
            "letters q, k and v once, for example ('qk', 'vv')"
        )
    return names


def _check_weights(
    weights: dict[str, float] | None, relations: tuple[str, ...]
) -> dict[str, float]:
    if weights is None:
        return {**dict.fromkeys(relations, 1.0), PIXEL: 0.1}
    terms = (*relations, PIXEL)
    if set(weights) - {PIXEL} != set(relations):
        raise UserError(
            f'weights of MIMHDHead has the terms {sorted(weights)}: it must name each '
            f'relation in relations={relations}, may name {PIXEL!r}, and nothing else'
        )
    return term_weights('MIMHDHead', weights, terms)
