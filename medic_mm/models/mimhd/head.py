"""MIM-HD's head: relation terms over matched heads, and the pixel term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.datasets.data_preprocessor import require_rgb, require_statistics
from medic_mm.models.fit import (
    equal,
    require_dividing_heads,
    require_fit,
    require_grid,
    require_teacher,
)
from medic_mm.models.losses import relation_cross_entropy, relation_kl, relation_mse
from medic_mm.models.losses.weights import term_weights
from medic_mm.models.mimhd.backbone import RelationViT
from medic_mm.models.vit.qkv import QKV
from medic_mm.registry import MODELS

DISTANCES = dict(kl=relation_kl, cross_entropy=relation_cross_entropy, mse=relation_mse)
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
        pixel_loss: Component with ``loss(prediction, images, mask)``. Default:
            mmpretrain's ``MAEPretrainHead`` with ``norm_pix=True`` and patches of 16.
        init_cfg: mmengine's initialisation settings.

    Raises:
        UserError: for an unknown relation, distance or reduction, and for weights that
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
        listed = isinstance(relations, Sequence) and not isinstance(relations, str)
        named = tuple(relations) if listed else (relations,)
        pairs = all(len(str(n)) == 2 and set(str(n)) <= set('qkv') for n in named)
        require(
            named and pairs and len(set(named)) == len(named),
            f'relations={named} of MIMHDHead does not fit: name each pair of the '
            "letters q, k and v once, for example ('qk', 'vv')",
        )
        for name, value, choices in (
            ('distance', distance, tuple(DISTANCES)),
            ('head_reduction', head_reduction, REDUCTIONS),
        ):
            require(
                value in choices,
                f'{name}={value!r} of MIMHDHead is unknown: use one of '
                f'{", ".join(map(repr, choices))}',
            )
        self.weights = _complete_weights(weights, named)
        heads = dict(student_heads=student_heads, teacher_heads=teacher_heads)
        for name, value in heads.items():
            require_number(self, name, value, low=1, integer=True)
        require_number(self, 'num_tokens', num_tokens, low=2, integer=True)
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads
        self.num_tokens = num_tokens
        self.relations = tuple(name for name in named if self.uses(name))
        self.distance = DISTANCES[distance]
        self.include_cls = include_cls
        self.head_reduction = head_reduction
        given = {'type': 'medic_mm.AdaptiveMatching', **heads, **(matching or {})}
        self.matchings = nn.ModuleDict(
            {name: MODELS.build(dict(given)) for name in self.relations}
        )
        if self.uses(PIXEL):
            self.pixel_loss = MODELS.build(_complete_pixel_loss(pixel_loss))

    def uses(self, term: str) -> bool:
        """Whether ``'pixel'`` or a relation has any weight."""
        return self.weights.get(term, 0.0) > 0

    def needed(
        self, neck: dict | None, teacher: dict | nn.Module | None
    ) -> dict[str, Any]:
        """Neck and teacher for the terms in use: no decoders without a pixel term."""
        if not self.uses(PIXEL):
            neck = None
            if isinstance(teacher, dict) and 'decoder' in teacher:
                teacher = {**teacher, 'decoder': None}
        return dict(neck=neck, target_generator=teacher)

    def check_widths(self, student: int, teacher: int) -> None:
        """Refuse widths of the distilled blocks that the matching cannot work with.

        Raises:
            UserError: says which.
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
            teacher: The same of the teacher, ``(B, M1, N, d')`` each.
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
            UserError: where heads or tokens are not as declared.
        """
        raw: dict[str, Tensor] = {}
        health: dict[str, Tensor] = {}
        if self.relations and not self.include_cls:
            student, teacher = student.without_cls(), teacher.without_cls()
        pairs = {n: (student.pair(n), teacher.pair(n)) for n in self.relations}
        for name, (ours, theirs) in pairs.items():
            matching = self.matchings[name]
            matched = matching(ours, theirs, self.distance)
            summed = self.head_reduction == 'sum'
            raw[name] = matched.loss * (matching.matched_heads if summed else 1)
            for key, value in matched.health().items():
                health[f'{key}_{name}'] = value
        if self.uses(PIXEL):
            mask = None if hidden is None else hidden.float()
            raw[PIXEL] = self.pixel_loss.loss(pixels.float(), images.float(), mask)
        return {
            **{f'loss_{name}': self.weights[name] * v for name, v in raw.items()},
            **{f'raw_{name}': v.detach() for name, v in raw.items()},
            **health,
        }


def relations_fit(model: nn.Module) -> None:
    """The parts of a MIMHD that the relations need, and what must equal what.

    Raises:
        UserError: names the setting, its value and what would be right.
    """
    backbone, head, teacher = model.backbone, model.head, model.target_generator
    block = model.student_block
    require_number(model, 'student_block', block, integer=True)
    require_number(model, 'mask_ratio', model.mask_ratio, above=0, below=1)
    require(
        isinstance(backbone, RelationViT),
        f'backbone.type={type(backbone).__name__} does not hand out queries, keys '
        "and values: use 'medic_mm.RelationViT'",
    )
    require(
        1 <= block <= backbone.num_layers,
        f'student_block={block} is out of range: the backbone has blocks 1 to '
        f'{backbone.num_layers}',
    )
    require(
        teacher is not None,
        'MIMHD distils from a teacher: set target_generator, for example '
        "dict(type='medic_mm.MAETeacher', ...)",
    )
    require_teacher(teacher, relations=True, fitting="'medic_mm.MAETeacher'")
    require_rgb(model.data_preprocessor)
    require_statistics(model.data_preprocessor)
    require_dividing_heads(model)
    require_fit(
        model,
        equal(
            'head.student_heads',
            f'the number of heads of block {block} of the backbone',
            lambda m: m.backbone.num_heads(block),
        ),
        equal(
            'head.teacher_heads',
            'the number of heads of the teacher',
            'target_generator.num_heads',
        ),
        equal(
            'head.num_tokens',
            'the number of tokens of the backbone with its class token',
            lambda m: 1 + math.prod(m.backbone.patch_resolution),
        ),
    )
    head.check_widths(backbone.embed_dims, teacher.embed_dims)
    require_grid(
        teacher,
        tuple(backbone.patch_resolution),
        resizes=False,
        otherwise="relations need the teacher's grid, which is square: use a square "
        'backbone.img_size',
    )


def _complete_weights(
    weights: dict[str, float] | None, relations: tuple[str, ...]
) -> dict[str, float]:
    if weights is None:
        return {**dict.fromkeys(relations, 1.0), PIXEL: 0.1}
    require(
        not isinstance(weights, Mapping) or set(weights) - {PIXEL} == set(relations),
        f'weights={weights!r} of MIMHDHead: it must name each relation in '
        f'relations={relations}, may name {PIXEL!r}, and nothing else',
    )
    return term_weights('MIMHDHead', weights, (*relations, PIXEL))


def _complete_pixel_loss(settings: dict | None) -> dict:
    """mmpretrain's pixel head with MAE's squared error where no loss is named."""
    if settings is None:
        settings = dict(type='mmpretrain.MAEPretrainHead', norm_pix=True, patch_size=16)
    if str(settings['type']).endswith('MAEPretrainHead') and 'loss' not in settings:
        squared = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2')
        return dict(settings, loss=squared)
    return settings
