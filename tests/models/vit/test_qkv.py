"""Queries, keys and values split into heads, against the host's own attention."""

import pytest
import torch
from literal_relations import draw
from mmpretrain.models.utils import MultiheadAttention

from medic_mm.models.losses import relation_logits
from medic_mm.models.vit.qkv import QKV, resplit_heads, split_qkv


def make() -> QKV:
    return split_qkv(draw(2, 5, 3 * 12), 3)


def test_heads_are_where_the_host_has_them():
    """Attention from our q, k, v gives the host's output."""
    torch.manual_seed(0)
    attention = MultiheadAttention(embed_dims=12, num_heads=3)
    attention.init_weights()
    tokens = draw(2, 5, 12)
    qkv = split_qkv(attention.qkv(tokens), 3)
    maps = relation_logits(*qkv.pair('qk')).softmax(-1)
    mixed = (maps @ qkv.value).transpose(1, 2).reshape(2, 5, 12)
    torch.testing.assert_close(attention.proj(mixed), attention(tokens))


def test_pairs():
    qkv = make()
    parts = dict(q=qkv.query, k=qkv.key, v=qkv.value)
    for first, x in parts.items():
        for second, y in parts.items():
            pair = qkv.pair(first + second)
            assert pair[0] is x
            assert pair[1] is y


@pytest.mark.parametrize('relation', ['q', 'qkv', 'qx', '', 'QK'])
def test_refuses_other_pairs(relation):
    with pytest.raises(ValueError, match='is unknown: use two letters'):
        make().pair(relation)


def test_without_cls_drops_the_first_token():
    projected = draw(2, 5, 36)
    qkv, rest = split_qkv(projected, 3), split_qkv(projected[:, 1:], 3)
    for name in ('query', 'key', 'value'):
        assert torch.equal(getattr(qkv.without_cls(), name), getattr(rest, name))


def test_split_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match='5 heads do not divide the width 12'):
        split_qkv(draw(2, 5, 36), 5)


@pytest.mark.parametrize('num_heads', [1, 2, 3, 6])
def test_resplit_cuts_the_joint_width_anew(num_heads):
    features = make().value
    out = resplit_heads(features, num_heads)
    width = 12 // num_heads
    for image in range(2):
        for token in range(5):
            joint = torch.cat([features[image, head, token] for head in range(3)])
            for head in range(num_heads):
                part = joint[head * width : (head + 1) * width]
                assert torch.equal(out[image, head, token], part)


def test_resplit_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match='5 relation heads do not divide the width 12'):
        resplit_heads(make().value, 5)
