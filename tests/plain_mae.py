"""An MAE in plain torch, from the paper and the official names; nothing of the host."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# encoder and decoder; images are 4x4 patches of 4 px
DIMS, DEPTH, HEADS = 24, 4, 3
DECODER_DIMS, DECODER_DEPTH, DECODER_HEADS = 16, 2, 2
PATCH, SIDE = 4, 4
ARCH = dict(
    embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * DIMS
)
DECODER = dict(embed_dims=DECODER_DIMS, depth=DECODER_DEPTH, num_heads=DECODER_HEADS)

Weights = dict[str, Tensor]


def shapes(
    dims: int = DIMS,
    depth: int = DEPTH,
    decoder_dims: int = DECODER_DIMS,
    decoder_depth: int = DECODER_DEPTH,
    patch: int = PATCH,
    side: int = SIDE,
) -> dict[str, tuple[int, ...]]:
    """Every name of an official checkpoint with its shape."""
    length, pixels = 1 + side**2, 3 * patch**2
    found: dict[str, tuple[int, ...]] = {
        'cls_token': (1, 1, dims),
        'pos_embed': (1, length, dims),
        'patch_embed.proj.weight': (dims, 3, patch, patch),
        'patch_embed.proj.bias': (dims,),
        'mask_token': (1, 1, decoder_dims),
        'decoder_pos_embed': (1, length, decoder_dims),
    }
    linear = {
        'decoder_embed': (decoder_dims, dims),
        'decoder_pred': (pixels, decoder_dims),
    }
    norm = {'norm': dims, 'decoder_norm': decoder_dims}
    for start, width, blocks in (
        ('blocks', dims, depth),
        ('decoder_blocks', decoder_dims, decoder_depth),
    ):
        for number in range(blocks):
            at = f'{start}.{number}'
            norm |= {f'{at}.norm1': width, f'{at}.norm2': width}
            linear |= {
                f'{at}.attn.qkv': (3 * width, width),
                f'{at}.attn.proj': (width, width),
                f'{at}.mlp.fc1': (4 * width, width),
                f'{at}.mlp.fc2': (width, 4 * width),
            }
    for name, (outputs, inputs) in linear.items():
        found |= {f'{name}.weight': (outputs, inputs), f'{name}.bias': (outputs,)}
    for name, width in norm.items():
        found |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
    return found


def random_weights(seed: int = 0, **sizes: int) -> Weights:
    """Weights that are all different, position embeddings without any symmetry."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, shape in shapes(**sizes).items():
        value = torch.randn(shape, generator=generator) * 0.3
        is_norm = 'norm' in name and name.endswith('weight')
        drawn[name] = 1 + value if is_norm else value
    return drawn


def encoder_only(weights: Weights) -> Weights:
    return {k: v for k, v in weights.items() if not k.startswith(('decoder', 'mask'))}


def encode(weights: Weights, images: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Final tokens ``(B, 1 + L, D)``; queries, keys and values of each block."""
    patches = [
        images[:, :, y : y + PATCH, x : x + PATCH].flatten(1)
        for y in range(0, images.shape[2], PATCH)
        for x in range(0, images.shape[3], PATCH)
    ]
    kernel = weights['patch_embed.proj.weight'].flatten(1)
    tokens = torch.stack(patches, 1) @ kernel.T + weights['patch_embed.proj.bias']
    cls_token = weights['cls_token'].repeat(len(images), 1, 1)
    tokens = torch.cat([cls_token, tokens], 1) + weights['pos_embed']
    recorded = []
    for number in range(DEPTH):
        tokens, qkv = _block(weights, f'blocks.{number}', tokens, HEADS)
        recorded.append(qkv)
    return _norm(weights, 'norm', tokens), recorded


def decode(weights: Weights, tokens: Tensor) -> Tensor:
    """Pixels ``(B, L, p * p * 3)`` of tokens ``(B, 1 + L, D')`` with mask tokens."""
    tokens = tokens + weights['decoder_pos_embed']
    for number in range(DECODER_DEPTH):
        tokens, _ = _block(weights, f'decoder_blocks.{number}', tokens, DECODER_HEADS)
    tokens = _norm(weights, 'decoder_norm', tokens)
    return _linear(weights, 'decoder_pred', tokens)[:, 1:]


def _block(
    weights: Weights, at: str, tokens: Tensor, heads: int
) -> tuple[Tensor, list[Tensor]]:
    projected = _linear(
        weights, f'{at}.attn.qkv', _norm(weights, f'{at}.norm1', tokens)
    )
    whole = projected.chunk(3, dim=-1)
    per_head = [torch.stack(part.chunk(heads, dim=-1), dim=1) for part in whole]
    query, key, value = per_head  # (B, M, N, d)
    logits = torch.einsum('bmid,bmjd->bmij', query, key) / query.shape[-1] ** 0.5
    mixed = torch.einsum('bmij,bmjd->bmid', logits.softmax(-1), value)
    mixed = torch.cat(mixed.unbind(1), dim=-1)
    tokens = tokens + _linear(weights, f'{at}.attn.proj', mixed)
    inner = _linear(weights, f'{at}.mlp.fc1', _norm(weights, f'{at}.norm2', tokens))
    return tokens + _linear(weights, f'{at}.mlp.fc2', F.gelu(inner)), per_head


def _linear(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    return tokens @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def _norm(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    return centred * scale * weights[f'{name}.weight'] + weights[f'{name}.bias']


def hugging_face(weights: Weights, style: str, start: str) -> Weights:
    """The names of transformers: files of version 4, of 5, and networks of 5."""
    blocks = {'4': 'encoder.layer', '5': 'encoder.layer', 'network': 'layers'}[style]
    decoder = {
        '4': 'decoder.decoder_layers',
        '5': 'decoder.decoder_encoder.layer',
        'network': 'decoder.decoder_layers',
    }[style]
    new = style == 'network'
    table = {
        'norm1': 'layernorm_before',
        'norm2': 'layernorm_after',
        'attn.proj': 'attention.o_proj' if new else 'attention.output.dense',
        'mlp.fc1': 'mlp.fc1' if new else 'intermediate.dense',
        'mlp.fc2': 'mlp.fc2' if new else 'output.dense',
    }
    outer = {
        'cls_token': 'embeddings.cls_token',
        'pos_embed': 'embeddings.position_embeddings',
        'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
        'patch_embed.proj.bias': 'embeddings.patch_embeddings.projection.bias',
        'norm.weight': 'layernorm.weight',
        'norm.bias': 'layernorm.bias',
    }
    found = {}
    for name, value in weights.items():
        if name in outer:
            found[start + outer[name]] = value
        elif name.startswith(('blocks.', 'decoder_blocks.')):
            kind, number, rest = name.split('.', 2)
            at = f'{start}{blocks}' if kind == 'blocks' else decoder
            part, _, last = rest.rpartition('.')
            if part != 'attn.qkv':
                found[f'{at}.{number}.{table[part]}.{last}'] = value
                continue
            for letter, word, third in zip(
                'qkv', ('query', 'key', 'value'), value.chunk(3), strict=True
            ):
                short = (
                    f'attention.{letter}_proj' if new else f'attention.attention.{word}'
                )
                found[f'{at}.{number}.{short}.{last}'] = third.clone()
        else:
            found[f'decoder.{name}'] = value
    return found
