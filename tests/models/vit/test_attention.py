"""The summed map of a student against one computed token by token."""

import pytest
import torch
from mmpretrain.models.backbones import BEiTViT, ResNet
from mmpretrain.models.selfsup.beit import BEiTPretrainViT
from torch import nn

from medic_mm.models.medic.backbone import MaskedViT
from medic_mm.models.vit.attention import (
    require_readable_attention,
    summed_attention,
)

ARCH = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
SETTINGS = dict(arch=ARCH, img_size=16, patch_size=4, drop_path_rate=0.5)
KINDS = ['vit', 'shared bias', 'bias per block']


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == 'vit':
        network = MaskedViT(**SETTINGS, drop_rate=0.3, layer_scale_init_value=0.1)
    else:
        shared = kind == 'shared bias'
        network = BEiTPretrainViT(
            **SETTINGS, use_shared_rel_pos_bias=shared, use_rel_pos_bias=not shared
        )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def bias_of(network: nn.Module, attn: nn.Module, head: int) -> torch.Tensor | float:
    """A head's position bias ``(N, N)``, looked up pair by pair."""
    if isinstance(network, MaskedViT):
        return 0.0
    holder = attn if network.rel_pos_bias is None else network.rel_pos_bias
    index = holder.relative_position_index
    table = holder.relative_position_bias_table
    return torch.tensor([[table[i, head].item() for i in row] for row in index])


def slow(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Block by block from what goes into its attention; head by head, row by row."""
    inputs = []
    handles = [
        layer.attn.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for layer in network.layers
    ]
    with torch.no_grad():
        network.eval()
        network(batch, None)
    for handle in handles:
        handle.remove()
    length = batch.shape[-1] * batch.shape[-2] // 16
    total = torch.zeros(len(batch), length, length)
    for layer, tokens in zip(network.layers, inputs, strict=True):
        attn, width = layer.attn, ARCH['embed_dims']
        weight, bias = attn.qkv.weight.detach(), torch.zeros(3 * width)
        if isinstance(network, MaskedViT):
            bias = attn.qkv.bias.detach()
        else:
            bias[:width], bias[-width:] = attn.q_bias.data, attn.v_bias.data
        size = width // ARCH['num_heads']
        for head in range(ARCH['num_heads']):
            rows = slice(head * size, (head + 1) * size)
            query = tokens @ weight[:width][rows].T + bias[:width][rows]
            keys = slice(width + head * size, width + (head + 1) * size)
            key = tokens @ weight[keys].T + bias[keys]
            position = bias_of(network, attn, head)
            for image in range(len(batch)):
                logits = query[image] @ key[image].T / size**0.5 + position
                exp = logits.exp()
                total[image] += (exp / exp.sum(1, keepdim=True))[1:, 1:]
    return total


@pytest.mark.parametrize('kind', KINDS)
def test_equals_the_slow_sum_of_all_blocks_and_heads(kind):
    network = build(kind)
    expected = slow(network, images())
    torch.testing.assert_close(summed_attention(network, images()), expected)
    assert expected.std() > 1e-3, 'the test sees nothing but uniform attention'


@pytest.mark.parametrize('kind', KINDS[:2])
def test_leaves_modes_randomness_and_gradients_alone(kind):
    network = build(kind)
    network.train()
    network.layers[0].eval()  # a part that its owner froze
    modes = [module.training for module in network.modules()]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    maps = summed_attention(network, images())
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in network.modules()] == modes
    assert not maps.requires_grad
    hooks = [len(module._forward_hooks) for module in network.modules()]
    assert sum(hooks) == 0


def test_training_under_autocast_still_reaches_every_weight():
    """Casts made without gradients must not be handed to the trained pass."""
    network, stored = build('vit'), []
    network.ln1.register_forward_hook(
        lambda *_: stored.append(torch.is_autocast_cache_enabled())
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        summed_attention(network, images())
        assert stored == [False]
        assert torch.is_autocast_cache_enabled()
        network(images())[-1].float().square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize(
    'network', [nn.Linear(2, 2), ResNet(18), BEiTViT(arch='small', with_cls_token=True)]
)
def test_refuses_what_has_no_plain_attention(network):
    if isinstance(network, BEiTViT):
        network.cls_token = None
    with pytest.raises(ValueError, match=f'attention of {type(network).__name__}'):
        require_readable_attention(network, "masking.source='student_ema'")
