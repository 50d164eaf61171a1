"""A CLIP image tower of open_clip as the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from medic_mm.checkpoints.strict import load_strictly, unusable
from medic_mm.errors import UserError
from medic_mm.models.teachers.base import (
    FrozenTeacher,
    TeacherOutput,
)
from medic_mm.models.teachers.hub import fetch, hub_address, kept_file
from medic_mm.models.teachers.loading import read_weight_file, require_weights
from medic_mm.models.teachers.open_clip_source import resolve_tower
from medic_mm.models.vit.arguments import block_index, check_numbers
from medic_mm.models.vit.attention import (
    ClassAttention,
    attention_over_heads,
    recorded_outputs,
)
from medic_mm.registry import MODELS

DEFAULT_FILE = 'open_clip_pytorch_model.bin'
POSITIONS = 'positional_embedding'


@MODELS.register_module()
class OpenCLIPTeacher(FrozenTeacher):
    """The image tower of an open_clip ViT; its text tower is never kept.

    The default output is MEDiC's target: the last block's hidden state, before the
    final norm and the projection. No block after the chosen one is run.

    Mean and standard deviation are the tag's, or those of the config's
    ``preprocess_cfg``; for a local file by model name, those that all tags of the model
    share, else OpenAI's.

    QuickGELU: a pretrained tag, an OpenAI file and a TorchScript archive say with
    which activation they were trained; a model with the other one is corrected, with a
    warning in the log. A plain local state dict does not, so there ``model``
    decides: ``ViT-B-16-quickgelu`` for OpenAI's weights.

    Args:
        model: Name of an open_clip ViT (``'ViT-B-16'``), an open_clip config dict
            (``embed_dim``, ``vision_cfg``, ``quick_gelu``; ``text_cfg`` is not read),
            or the path of an ``open_clip_config.json``.
        weights: A pretrained tag of the model (``'openai'``), fetched by open_clip in
            :meth:`init_weights`; or a local file: safetensors, state dict or OpenAI's
            TorchScript archive. Weights of a text tower in it are ignored.
        layer: Block whose output is taken, 0-based or from the end.
        norm: Apply the final norm ``ln_post`` to the tokens.
        input_size: See :class:`FrozenTeacher`. Default: the model's own. Position
            embeddings are resized by open_clip's own function.
        input_norm: See :class:`FrozenTeacher`.
        output_grid: See :class:`FrozenTeacher`.
        random_weights: See :class:`FrozenTeacher`; ``weights`` are then not read.

    Raises:
        ValueError: for an unknown model or tag, a tower that is not a ViT, a ``layer``
            out of range, or no ``weights``.
    """

    network: VisionTransformer

    def __init__(
        self,
        model: str | Mapping[str, Any],
        weights: str | None = None,
        layer: int = -1,
        norm: bool = False,
        input_size: int | None = None,
        input_norm: str = 'teacher',
        output_grid: Sequence[int] | None = None,
        random_weights: bool = False,
    ) -> None:
        require_weights(
            'OpenCLIPTeacher', weights, random_weights, "a tag such as 'openai'"
        )
        check_numbers(self, layer=layer, input_size=input_size)
        self._source = source = resolve_tower(model, weights, input_size)
        network = source.build()
        super().__init__(
            network=network,
            mean=source.mean,
            std=source.std,
            embed_dims=network.conv1.out_channels,
            patch_size=source.patch_size,
            input_size=source.image_size,
            input_norm=input_norm,
            output_grid=output_grid,
            random_weights=random_weights,
        )
        self.weights = weights
        depth = len(network.transformer.resblocks)
        self.layer = block_index(layer, depth, source.name)
        self.norm = norm
        if norm and network.attn_pool is not None:
            raise UserError(
                f'norm=True: {source.name} has no norm for its tokens (ln_post comes '
                'after attentional pooling); use norm=False'
            )

    def load_weights(self) -> None:
        """Load the image tower from the tag or the local file, strictly."""
        source, tag = self._source, self._source.tag_config
        path = self.weights
        if tag:
            path = fetch(
                f'the weights {self.weights!r} of {source.name}',
                hub_address(tag['hf_hub']) if tag.get('hf_hub') else tag['url'],
                self.network,
                lambda: open_clip.download_pretrained(tag),
                lambda: kept_weights(tag),
            )
        file = read_weight_file(path)
        if file.quick_gelu is not None and source.set_activation(
            file.quick_gelu, str(file.path)
        ):
            self.hold(source.build())
        tower = image_tower(file.state_dict)
        if POSITIONS in tower and 'class_embedding' in tower:  # not a text tower's
            positions = file.positions_on(
                self.native_grid, POSITIONS, tower[POSITIONS][None]
            )
            tower[POSITIONS] = positions[0]
            resize_positions(tower, self.network)
        load_strictly(
            self.network,
            tower,
            str(file.path),
            'Check that model names the architecture of these weights, or give a local '
            'file that fits with weights=PATH',
        )

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        """Tokens, and attention if asked for, of the chosen block."""
        if not attention:
            return self._tokens(images)
        out, maps = self._with_attention(images)
        out.attention = maps[:, 1:, 1:]
        return out

    def encode_class_attention(self, images: Tensor) -> ClassAttention:
        """Attention of the class token, mean of the heads."""
        rows = self._with_attention(images)[1][:, None, 0, 1:]
        heads = self._block.attn.num_heads
        return ClassAttention.from_rows(
            rows, self.native_grid, 'teacher', self.layer + 1, heads
        )

    @property
    def gives_attention(self) -> bool:
        """Whether :func:`mean_attention` can read the block: not scaled cosines."""
        attn = self._block.attn
        return (
            getattr(attn, 'in_proj_weight', None) is not None
            and getattr(attn, 'logit_scale', None) is None
        )

    def extra_settings(self) -> tuple:
        """See :class:`FrozenTeacher`."""
        return (self.layer, self.norm, self._source.quick_gelu)

    @property
    def _block(self) -> nn.Module:
        return self.network.transformer.resblocks[self.layer]

    def _with_attention(self, images: Tensor) -> tuple[TeacherOutput, Tensor]:
        with recorded_outputs(self._block.ln_1) as inputs:
            out = self._tokens(images)
        return out, mean_attention(self._block.attn, inputs[0])

    def _tokens(self, images: Tensor) -> TeacherOutput:
        found = self.network.forward_intermediates(
            images,
            indices=[self.layer],
            stop_early=True,
            normalize_intermediates=self.norm,
            intermediates_only=True,
            output_fmt='NLC',
            output_extra_tokens=True,
        )
        return TeacherOutput(
            patch_tokens=found['image_intermediates'][0],
            cls_token=found['image_intermediates_prefix'][0][:, 0],
        )


def kept_weights(tag: Mapping[str, Any]) -> str | None:
    """The file of a tag that an earlier download has left on this machine."""
    if not tag.get('hf_hub'):
        path = Path('~/.cache/clip').expanduser() / Path(tag['url']).name
        # open_clip checks it, and fetches it again where it is torn
        return open_clip.download_pretrained(tag) if path.is_file() else None
    repository, name = str(tag['hf_hub']).rsplit('/', 1)
    names = [name]
    if name in ('', DEFAULT_FILE):
        names = ['open_clip_model.safetensors', DEFAULT_FILE]
    elif name.endswith('.bin'):
        names = [name[:-4] + '.safetensors', name]
    return kept_file(repository, names)


def image_tower(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's part of a state dict; the whole where it holds nothing else."""
    prefix = 'visual.'
    tower = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    return tower or dict(state_dict)


def resize_positions(tower: dict[str, Tensor], network: VisionTransformer) -> None:
    """Resize the position embedding in ``tower`` to the network's grid, in place."""
    positions = tower.get(POSITIONS)
    if positions is None or positions.dim() != 2 or unusable(positions):
        return  # the strict load names the fault
    # open_clip's function knows the keys of the whole model
    whole = {f'visual.{POSITIONS}': positions}
    resize_pos_embed(whole, SimpleNamespace(visual=network))
    tower[POSITIONS] = whole[f'visual.{POSITIONS}']


def mean_attention(attn: nn.Module, tokens: Tensor) -> Tensor:
    """Softmaxed attention of an open_clip block, averaged over heads.

    Args:
        attn: The block's attention, torch's or open_clip's own: one input projection
            for query, key and value.
        tokens: Its input ``(B, N, D)``, after the block's first norm.

    Returns:
        ``(B, N, N)``; rows sum to 1.
    """
    width = tokens.shape[-1]
    bias = attn.in_proj_bias
    joined = F.linear(
        tokens,
        attn.in_proj_weight[: 2 * width],
        None if bias is None else bias[: 2 * width],
    )
    joined = joined.unflatten(-1, (2, attn.num_heads, width // attn.num_heads))
    query, key = joined.permute(2, 0, 3, 1, 4)  # (B, N, 2, M, d) -> (2, B, M, N, d)
    if hasattr(attn, 'ln_q'):
        query, key = attn.ln_q(query), attn.ln_k(key)
    return attention_over_heads(query, key) / attn.num_heads
