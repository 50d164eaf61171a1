"""MEDiC's head: a list of loss terms, what each looks at, and the numbers logged.

A term is a name, a weight, a component, and a view: what the component is called with.
``token``, ``cls`` and ``pixel`` are the defaults; others come by ``terms``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor, nn

from medic_mm.checks import require, require_number
from medic_mm.datasets.data_preprocessor import require_statistics
from medic_mm.masking import PatchSplit, gather_tokens
from medic_mm.models import fit
from medic_mm.models.losses import mean_cosine
from medic_mm.models.losses.weights import term_weights
from medic_mm.models.medic.backbone import is_sparse
from medic_mm.models.teachers import TeacherOutput
from medic_mm.registry import MODELS

POSITIONS = ('visible', 'masked', 'all')


class Step(NamedTuple):
    """What one training step gives the terms to look at.

    Attributes:
        tokens: Student tokens after its final norm, class token first:
            ``(B, 1 + V, D)`` from a sparse encoder, ``(B, 1 + L, D)`` from a dense one.
        split: Visible and hidden patches.
        teacher: The teacher's tokens on the same grid; None where no term needs it.
        pixels: Decoder output ``(B, L, p * p * 3)``; None where no term needs it.
        images: The student's normalised images ``(B, 3, H, W)``.
    """

    tokens: Tensor
    split: PatchSplit
    teacher: TeacherOutput | None = None
    pixels: Tensor | None = None
    images: Tensor | None = None


@MODELS.register_module()
class MEDiCHead(BaseModule):
    """Token distillation, class-token alignment, pixel reconstruction, and your terms.

    One linear layer maps student tokens to the teacher's width; patches and class token
    share it. A term with weight 0 (or left out of ``weights``) is not computed.

    Args:
        embed_dims: Width of the student.
        target_dims: Width of the teacher's tokens.
        weights: Weight of each term, keys ``token``, ``cls``, ``pixel`` and those of
            ``terms``. Default: the paper's optimum (Fig. 4), 1, 0.30 and 0.01.
        token_positions: Where token terms look: ``'visible'``, ``'masked'`` or
            ``'all'`` patches. Default (None): visible for a sparse encoder, masked for
            a dense one, as in the released code.
        token_loss: Component called with predictions and targets ``(B, N, D)``.
        cls_loss: Component called with predictions and targets ``(B, D)``.
        pixel_loss: Component with ``loss(prediction, images, mask)``: mmpretrain's
            ``MAEPretrainHead``, which owns patches and their normalisation.
        terms: Further components by name. Their attribute ``looks_at`` is
            ``'patch_tokens'``, ``'class_tokens'`` or ``'pixels'`` (called as the three
            above), or ``'everything'`` (called with a :class:`Step`).
        init_cfg: mmengine's initialisation settings.

    Raises:
        UserError: for an unknown or negative weight, no term at all, an unknown
            ``token_positions``, or a term without component or view.
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
        terms: dict[str, dict] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            token=token_loss or dict(type='medic_mm.TokenDistillationLoss'),
            cls=cls_loss or dict(type='medic_mm.ClsAlignmentLoss'),
            pixel=pixel_loss,
        )
        for name in terms or {}:
            require(
                name.isidentifier() and 'loss' not in name and name not in given,
                f'head.terms has the name {name!r}: use a word without "loss", which '
                f'mmengine adds up, that is not one of {", ".join(given)}',
            )
        given.update(terms or {})
        if weights is None:
            weights = dict(token=1.0, cls=0.30, pixel=0.01)
        self.weights = term_weights('MEDiCHead', weights, given)
        for name in terms or {}:
            require(name in weights, f'head.weights has no weight of the term {name!r}')
        for name, width in (('embed_dims', embed_dims), ('target_dims', target_dims)):
            require_number(self, name, width, low=1, integer=True)
        require(
            token_positions in (None, *POSITIONS),
            f'token_positions={token_positions!r} is unknown: use one of '
            f'{", ".join(map(repr, POSITIONS))}, or None for the default',
        )
        self.embed_dims = embed_dims
        self.target_dims = target_dims
        self.token_positions = token_positions
        components = {
            name: _component(name, settings)
            for name, settings in given.items()
            if self.weights[name]
        }
        self.terms = {name: _view(name, built) for name, built in components.items()}
        if self.looking_at('pair'):
            self.projection = nn.Linear(embed_dims, target_dims)
        for name, built in components.items():
            self.add_module(f'{name}_loss', built)

    def looking_at(self, what: str) -> list[str]:
        """Names of the terms whose view has a flag: teacher, decoder or pair."""
        return [name for name, view in self.terms.items() if getattr(view, what)]

    def needed(self, neck: Any, teacher: Any, masks_by_teacher: bool) -> dict[str, Any]:
        """Decoder and teacher of a model; None for what neither terms nor masks use."""
        unused = 'No term of the loss looks at the %s: it is not built.'
        if neck is not None and not self.looking_at('decoder'):
            MMLogger.get_current_instance().info(unused, 'decoder')
            neck = None
        if teacher is not None and not (masks_by_teacher or self.looking_at('teacher')):
            MMLogger.get_current_instance().info(unused, 'teacher')
            teacher = None
        return dict(neck=neck, target_generator=teacher)

    def loss(
        self,
        tokens: Tensor,
        split: PatchSplit,
        teacher: TeacherOutput | None = None,
        pixels: Tensor | None = None,
        images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of one batch; arguments as the attributes of :class:`Step`.

        Returns:
            ``loss_<term>`` (weighted, trained on), ``raw_<term>`` (unweighted, only
            logged) for each term in use; only logged: ``std_cls``, the spread of the
            student's class tokens (1 is isotropic, 0 collapsed), and ``cos_<term>``,
            the mean teacher-student cosine of a term that compares tokens.
        """
        step = Step(tokens, split, teacher, pixels, images)
        losses, raw, health = {}, {}, {'std_cls': _spread(tokens[:, 0].detach())}
        for name, view in self.terms.items():
            parts = view.parts(self, step)
            component = getattr(self, f'{name}_loss')
            method = getattr(component, 'loss', None)  # mmpretrain's heads have one
            if not callable(method) or isinstance(method, nn.Module):
                method = component
            value = method(*parts)
            losses[f'loss_{name}'] = self.weights[name] * value
            raw[f'raw_{name}'] = value.detach()
            if view.pair:
                health[f'cos_{name}'] = mean_cosine(*parts)
        return {**losses, **raw, **health}


def _patch_tokens(head: MEDiCHead, step: Step) -> tuple[Tensor, Tensor]:
    """Projected student tokens and teacher tokens at the positions of token terms."""
    patches, target = step.tokens[:, 1:], step.teacher.patch_tokens
    sparse = patches.shape[1] != step.split.mask.shape[1]
    positions = head.token_positions or ('visible' if sparse else 'masked')
    if positions != 'all':
        index = step.split.visible if positions == 'visible' else step.split.hidden
        patches = patches if sparse else gather_tokens(patches, index)
        target = gather_tokens(target, index)
    return head.projection(patches), target


def _class_tokens(head: MEDiCHead, step: Step) -> tuple[Tensor, Tensor]:
    return head.projection(step.tokens[:, 0]), step.teacher.cls_token


def _pixels(head: MEDiCHead, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    return step.pixels.float(), step.images.float(), step.split.mask.float()


@torch.no_grad()
def _spread(cls_tokens: Tensor) -> Tensor:
    """Standard deviation over the batch of unit-norm tokens, times sqrt(D)."""
    unit = F.normalize(cls_tokens.float(), dim=-1)
    return unit.std(0, unbiased=False).mean() * unit.shape[-1] ** 0.5


class View(NamedTuple):
    """What a term looks at.

    Attributes:
        parts: From the head and a step to the arguments of the component.
        teacher: Whether the teacher is among them.
        decoder: Whether the decoder's output is.
        pair: Whether they are projected student tokens and teacher tokens.
    """

    parts: Callable[[MEDiCHead, Step], tuple]
    teacher: bool = False
    decoder: bool = False
    pair: bool = False


VIEWS = dict(
    patch_tokens=View(_patch_tokens, teacher=True, pair=True),
    class_tokens=View(_class_tokens, teacher=True, pair=True),
    pixels=View(_pixels, decoder=True),
    everything=View(lambda head, step: (step,), teacher=True, decoder=True),
)
DEFAULTS = dict(token='patch_tokens', cls='class_tokens', pixel='pixels')


def _component(name: str, settings: dict | None) -> nn.Module:
    require(
        settings is not None,
        f'head.weights.{name} needs {name}_loss, for example '
        "dict(type='mmpretrain.MAEPretrainHead', ...)",
    )
    return MODELS.build(settings)


def _view(name: str, component: nn.Module) -> View:
    looks_at = DEFAULTS.get(name) or getattr(component, 'looks_at', None)
    require(
        looks_at in VIEWS,
        f'head.terms.{name}.type={type(component).__name__} has looks_at={looks_at!r}: '
        f'it must be one of {", ".join(map(repr, VIEWS))}',
    )
    return VIEWS[looks_at]


# what must fit in a model with this head; see require_fit


def _positions_fit(model: Any) -> None:
    head, positions = model.head, model.head.token_positions
    require(
        VIEWS['patch_tokens'] not in head.terms.values()
        or not is_sparse(model.backbone)
        or positions in (None, 'visible'),
        f'head.token_positions={positions!r} has no prediction with '
        "encoding='sparse', which sees visible patches only: use 'visible', or "
        "encoding='dense'",
    )


def _decoder_fits(model: Any) -> None:
    for name in model.head.looking_at('decoder'):
        require(
            model.with_neck, f'the {name} term needs a decoder: set neck, or weight 0'
        )
        setting = f'head.{name}_loss' if name in DEFAULTS else f'head.terms.{name}'
        component = getattr(model.head, f'{name}_loss')
        fit.require_pixels(component, model.backbone, setting)
        fit.require_decoder(model.neck, model.backbone)


def _teacher_fits(model: Any) -> None:
    head, teacher = model.head, model.target_generator
    for name in head.looking_at('teacher'):
        require(
            teacher is not None,
            f'the {name} term needs a teacher: set target_generator, or weight 0',
        )
    if teacher is None:
        return
    fitting = "'medic_mm.OpenCLIPTeacher' or 'medic_mm.TimmTeacher'"
    fit.require_teacher(teacher, relations=False, fitting=fitting)
    require_statistics(model.data_preprocessor)
    fit.require_grid(
        teacher,
        tuple(model.backbone.patch_resolution),
        resizes=not model.masks_by_teacher,
        otherwise="its images are square: set masking.source='student_ema' and "
        f'{fit.teacher_setting(teacher, "output_grid")}',
    )
    if head.looking_at('pair'):
        width = 'target_generator.embed_dims'
        fit.equal('head.target_dims', 'the width of the teacher', width)(model)


FITS = (
    fit.equal('head.embed_dims', 'the width of the backbone', 'backbone.embed_dims'),
    _positions_fit,
    _decoder_fits,
    _teacher_fits,
)
