"""A ViT of timm as the teacher."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from medic_mm.checkpoints.strict import load_strictly
from medic_mm.errors import FileError, UserError
from medic_mm.models.teachers.base import (
    FrozenTeacher,
    TeacherOutput,
)
from medic_mm.models.teachers.hub import fetch, hub_address, kept_file
from medic_mm.models.teachers.loading import (
    WeightFile,
    names_a_file,
    near_names,
    read_weight_file,
    require_weights,
)
from medic_mm.models.vit.arguments import block_index, check_numbers
from medic_mm.models.vit.attention import ClassAttention, recorded_outputs
from medic_mm.randomness import seeded_construction
from medic_mm.registry import MODELS

FROM_TIMM = 'timm'


@MODELS.register_module()
class TimmTeacher(FrozenTeacher):
    """A timm ViT with a class token; register and distillation tokens are dropped.

    Mean and standard deviation are those of the model's pretrained tag in timm (of its
    default tag, where the name has none). No block after the chosen one is run.

    Args:
        model: A timm name, with or without a tag: ``'vit_small_patch14_dinov2'``,
            ``'vit_base_patch16_224.mae'``.
        weights: ``'timm'`` for timm's own weights of the tag, fetched by timm in
            :meth:`init_weights`; or a local file (safetensors or state dict) with
            timm's keys. Its classifier is ignored; position embeddings are resized by
            the ``checkpoint_filter_fn`` of the model's file in timm.
        layer: Block whose output is taken, 0-based or from the end.
        norm: Apply the network's final norm to the tokens.
        input_size: See :class:`FrozenTeacher`; any multiple of the patch size.
            Default: the model's own.
        input_norm: See :class:`FrozenTeacher`.
        output_grid: See :class:`FrozenTeacher`.
        random_weights: See :class:`FrozenTeacher`; ``weights`` are then not read.
        model_kwargs: More arguments of ``timm.create_model``, such as ``depth``; not
            ``img_size`` (use ``input_size``) or ``num_classes`` (there is no head).

    Raises:
        ValueError: for an unknown model, one without a class token, a ``layer`` out of
            range, ``norm=True`` where the network has no final norm, an activation
            other than the tag's, or no ``weights``.
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        layer: int = -1,
        norm: bool = False,
        input_size: int | None = None,
        input_norm: str = 'teacher',
        output_grid: Sequence[int] | None = None,
        random_weights: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        require_weights(
            'TimmTeacher', weights, random_weights, "'timm' (timm's own weights)"
        )
        check_numbers(self, layer=layer, input_size=input_size)
        self._kwargs = dict(model_kwargs or {})
        if taken := {'img_size', 'num_classes'} & set(self._kwargs):
            raise UserError(
                f'model_kwargs has {", ".join(sorted(taken))}, which TimmTeacher sets '
                'itself: use input_size, and leave num_classes out'
            )
        if input_size is not None:
            self._kwargs['img_size'] = input_size
        network = _build(model, self._kwargs)
        _require_tokens(model, network)
        _require_source(model, network, weights)
        _require_activation(model, network, weights)
        pretrained = network.pretrained_cfg
        super().__init__(
            network=network,
            mean=pretrained['mean'],
            std=pretrained['std'],
            embed_dims=network.embed_dim,
            patch_size=network.patch_embed.patch_size[0],
            input_size=input_size or network.patch_embed.img_size[0],
            input_norm=input_norm,
            output_grid=output_grid,
            random_weights=random_weights,
        )
        self.model = model
        self.weights = weights
        self.layer = block_index(layer, len(network.blocks), model)
        self.norm = norm
        if norm and isinstance(network.norm, nn.Identity):
            raise UserError(
                f'norm=True: {model} has no norm for its tokens (it normalises after '
                'pooling); use norm=False'
            )

    def load_weights(self) -> None:
        """Load timm's weights or the local file, strictly."""
        if self.weights == FROM_TIMM:
            origin, state_dict = f"timm's weights of {self.model}", self._fetch()
        else:
            file = read_weight_file(self.weights)
            if file.quick_gelu and not _uses_quick_gelu(self.network):
                raise FileError(
                    f'{file.path} was trained with QuickGELU but model={self.model!r} '
                    f'has another activation: use model={_quick(self.model)!r}'
                )
            origin, state_dict = str(file.path), self._adapt(file)
        load_strictly(
            self.network,
            state_dict,
            origin,
            'Check that model and model_kwargs name the architecture of these weights, '
            'or give a local file that fits with weights=PATH',
        )

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        """Tokens, and attention if asked for, of the chosen block."""
        if not attention:
            return self._tokens(images)
        out, maps = self._with_attention(images)
        first = self.network.num_prefix_tokens
        out.attention = maps.mean(1)[:, first:, first:]
        return out

    def encode_class_attention(self, images: Tensor) -> ClassAttention:
        """Attention of the class token, every head."""
        maps = self._with_attention(images)[1]
        rows = maps[:, :, 0, self.network.num_prefix_tokens :]
        return ClassAttention.from_rows(
            rows, self.native_grid, 'teacher', self.layer + 1
        )

    @property
    def gives_attention(self) -> bool:
        """Whether :func:`explicit_attention` can read the block."""
        return has_explicit_attention(
            getattr(self.network.blocks[self.layer], 'attn', None)
        )

    def extra_settings(self) -> tuple:
        """See :class:`FrozenTeacher`."""
        return (self.model, sorted(self._kwargs.items()), self.layer, self.norm)

    def _with_attention(self, images: Tensor) -> tuple[TeacherOutput, Tensor]:
        with explicit_attention(self.network.blocks[self.layer].attn) as weights:
            out = self._tokens(images)
        return out, weights[0]

    def _tokens(self, images: Tensor) -> TeacherOutput:
        [(patches, prefix)] = self.network.forward_intermediates(
            images,
            indices=[self.layer],
            return_prefix_tokens=True,
            norm=self.norm,
            stop_early=True,
            output_fmt='NLC',
            intermediates_only=True,
        )
        return TeacherOutput(patch_tokens=patches, cls_token=prefix[:, 0])

    def _adapt(self, file: WeightFile) -> dict[str, Tensor]:
        """Drop the classifier and resize position embeddings with timm's filter.

        Raises:
            FileError: where timm's filter fails.
        """
        module = importlib.import_module(type(self.network).__module__)
        adapted = dict(file.state_dict)
        positions = adapted.get('pos_embed')
        if positions is not None and file.grid is not None:
            extra = positions.shape[1] - math.prod(file.grid)
            adapted['pos_embed'] = file.positions_on(
                self.native_grid, 'pos_embed', positions, max(extra, 0)
            )
        if hasattr(module, 'checkpoint_filter_fn'):
            try:
                adapted = module.checkpoint_filter_fn(adapted, self.network)
            except Exception as error:  # it does not expect what does not fit
                reason = ' '.join(str(error).split()) or type(error).__name__
                raise FileError(
                    f'{file.path} does not fit model={self.model!r}: timm cannot bring '
                    f'its weights into shape ({reason})'
                ) from error
        heads = self.network.pretrained_cfg.get('classifier') or 'head'
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        prefixes = tuple(f'{head}.' for head in heads)
        return {k: v for k, v in adapted.items() if not k.startswith(prefixes)}

    def _fetch(self) -> dict[str, Tensor]:
        config = self.network.pretrained_cfg
        hub = config.get('hf_hub_id')
        loaded = fetch(
            f"timm's weights of {self.model}",
            hub_address(hub) if hub else config['url'],
            self.network,
            self._download,
            self._kept,
        )
        return loaded.state_dict()

    def _kept(self) -> nn.Module | None:
        config = self.network.pretrained_cfg
        if not config.get('hf_hub_id'):
            folder = Path(torch.hub.get_dir()) / 'checkpoints'
            there = (folder / Path(config['url']).name).is_file()
            return self._download() if there else None
        name = config.get('hf_hub_filename')
        names = [name] if name else ['model.safetensors', 'pytorch_model.bin']
        file = kept_file(config['hf_hub_id'], names)
        return self._download(pretrained_cfg_overlay=dict(file=file)) if file else None

    def _download(self, **kwargs) -> nn.Module:
        # with the classifier of the tag, since timm loads strictly only then
        classes = self.network.pretrained_cfg['num_classes']
        kwargs = {**self._kwargs, **kwargs, 'num_classes': classes}
        with seeded_construction():
            loaded = timm.create_model(self.model, pretrained=True, **kwargs)
        loaded.reset_classifier(0)
        return loaded


@contextlib.contextmanager
def explicit_attention(attn: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the softmaxed attention ``(B, H, N, N)`` of a block while it runs.

    All of timm's attention classes (with query and key norms, rotary or relative
    positions) can compute without torch's fused kernel and then hand their weights to
    ``attn_drop``, which lets them pass as they are in eval mode.

    Raises:
        ValueError: for an attention class that works otherwise.
    """
    if not has_explicit_attention(attn):
        raise UserError(
            f'attention cannot be read from {type(attn).__name__}: use another model '
            'or masks that need no attention'
        )
    fused, attn.fused_attn = attn.fused_attn, False
    try:
        with recorded_outputs(attn.attn_drop) as weights:
            yield weights
    finally:
        attn.fused_attn = fused


def has_explicit_attention(attn: nn.Module) -> bool:
    """Whether :func:`explicit_attention` can read a block's attention."""
    dropout = getattr(attn, 'attn_drop', None)
    return isinstance(dropout, nn.Module) and hasattr(attn, 'fused_attn')


def _build(model: str, kwargs: Mapping[str, Any]) -> nn.Module:
    name, _, tag = model.partition('.')
    if not timm.is_model(name):
        raise UserError(
            f'model={model!r} is not a model of timm'
            f'{near_names(name, timm.list_models())}. Give a name of timm.list_models()'
        )
    known = [x.partition('.')[2] for x in timm.list_pretrained(f'{name}.*')]
    try:
        with seeded_construction():
            return timm.create_model(model, **{**kwargs, 'num_classes': 0})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if tag and tag not in known:
            raise UserError(
                f'model={model!r}: {tag!r} is not a tag of {name}'
                f'{near_names(tag, known)}. Give a name of '
                f'timm.list_pretrained({name + ".*"!r})'
            ) from error
        raise UserError(
            f'model={model!r}: timm does not build it with model_kwargs={kwargs} '
            f'({error})'
        ) from error


def _require_tokens(model: str, network: nn.Module) -> None:
    """Refuse what has no class token among the tokens of its blocks."""
    forward = getattr(network, 'forward_intermediates', None)
    has_prefix = (
        forward and 'return_prefix_tokens' in inspect.signature(forward).parameters
    )
    needed = ('cls_token', 'blocks', 'patch_embed')
    if not has_prefix or any(getattr(network, name, None) is None for name in needed):
        raise UserError(
            f'model={model!r} has no class token besides its patch tokens in every '
            'block, which a teacher needs: use a plain ViT with a class token, such as '
            'vit_base_patch16_224.mae'
        )


def _require_source(model: str, network: nn.Module, weights: str | None) -> None:
    """Refuse ``weights`` that are neither a file nor timm's own."""
    config = network.pretrained_cfg
    if weights == FROM_TIMM and not (config.get('hf_hub_id') or config.get('url')):
        raise UserError(
            f"weights='timm': timm has no weights of {model}; give a local file, or a "
            'model name with a tag that timm.list_pretrained() lists'
        )
    if weights not in (None, FROM_TIMM) and not names_a_file(weights):
        raise UserError(
            f"weights={weights!r} of TimmTeacher is neither 'timm' nor a local file, "
            'which is given by a path or with a suffix such as .safetensors or .pth'
        )


def _require_activation(model: str, network: nn.Module, weights: str | None) -> None:
    """Refuse a tag whose weights timm marks as trained with QuickGELU."""
    notes = ' '.join(network.pretrained_cfg.get('notes') or ())
    tag_counts = '.' in model or weights == FROM_TIMM
    if tag_counts and 'quickgelu' in notes and not _uses_quick_gelu(network):
        raise UserError(
            f'model={model!r}: its weights were trained with QuickGELU but the network '
            f'has another activation; use model={_quick(model)!r}'
        )


def _uses_quick_gelu(network: nn.Module) -> bool:
    return any(type(module).__name__ == 'QuickGELU' for module in network.modules())


def _quick(model: str) -> str:
    return model.replace('_clip_', '_clip_quickgelu_')
