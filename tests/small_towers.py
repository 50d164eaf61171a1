"""Small host networks and files of their weights, for the tests of the teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# the student's statistics, on the scale of its preprocessor: 0..255
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
# rough weights blow tokens up to about 20, and rounding with them
CLOSE = dict(atol=1e-4, rtol=1e-4)
CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(
        layers=3, width=32, head_width=16, patch_size=8, image_size=32, mlp_ratio=2.0
    ),
    text_cfg=dict(context_length=8, vocab_size=50, width=16, heads=2, layers=1),
)
VIT = 'test_vit'
VIT_KWARGS = dict(depth=3, patch_size=8, embed_dim=32, num_heads=2, reg_tokens=2)


def clip_config(**vision) -> dict:
    """The small open_clip config, with some of its vision settings changed."""
    config = copy.deepcopy(CLIP)
    config['vision_cfg'].update(vision)
    return config


def roughened(build: Callable[[], nn.Module]) -> nn.Module:
    """A network, the same at each call, whose every weight shows in the output."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        network = build()
        for value in network.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return network.eval()


def small_clip(quick_gelu: bool = False, **vision) -> open_clip.CLIP:
    """A small open_clip model with rough weights."""
    config = clip_config(**vision)
    return roughened(lambda: open_clip.CLIP(**config, quick_gelu=quick_gelu))


def clip_states(visual: nn.Module, batch: Tensor) -> list[Tensor]:
    """Hidden states after each block, ``(B, N, D)``, step by step."""
    tokens = visual.conv1(batch).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(batch), 1, -1)
    tokens = torch.cat([cls, tokens], 1) + visual.positional_embedding
    tokens = visual.ln_pre(tokens)
    states = []
    for block in visual.transformer.resblocks:
        tokens = block(tokens)
        states.append(tokens)
    return states


def small_vit(size: int = 32, **kwargs) -> nn.Module:
    """A small timm ViT with a class token, two registers and a classifier."""
    kwargs = {**VIT_KWARGS, 'num_classes': 5, 'img_size': size, **kwargs}
    return roughened(lambda: timm.create_model(VIT, **kwargs))


def save(network: nn.Module, path: Path) -> str:
    """Write a network's weights as safetensors."""
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return str(path)


def images(count: int = 2, size: int = 32) -> tuple[Tensor, Tensor]:
    """Images of 0..255, and the student's normalised batch of them."""
    generator = torch.Generator().manual_seed(7)
    raw = torch.randint(0, 256, (count, 3, size, size), generator=generator)
    return raw, (raw - MEAN) / STD


def normalised(raw: Tensor, mean: tuple, std: tuple) -> Tensor:
    """Images of 0..255, normalised by statistics for 0..1."""
    channels = [(raw[:, c] / 255.0 - mean[c]) / std[c] for c in range(3)]
    return torch.stack(channels, 1)


def literal_attention(query: Tensor, key: Tensor) -> Tensor:
    """Softmax attention in loops: ``(H, N, d)`` twice -> mean over heads ``(N, N)``."""
    heads, tokens, width = query.shape
    total = torch.zeros(tokens, tokens)
    for h in range(heads):
        for i in range(tokens):
            row = torch.stack([query[h, i] @ key[h, j] for j in range(tokens)])
            row = (row / width**0.5).exp()
            total[i] += row / row.sum() / heads
    return total
