"""Adaptive matching against loops over heads; its weights, their gradient and fate."""

import math

import pytest
import torch
import torch.nn.functional as F
from literal_relations import (
    draw,
    literal_matrix,
    literal_relation,
    literal_softmax,
    sides,
)

from medic_mm.models.losses import relation_kl
from medic_mm.models.mimhd.adaptive import DESCRIPTORS, AdaptiveMatching, sinkhorn
from medic_mm.models.mimhd.matching import head_similarity, used_heads

STUDENT_HEADS, TEACHER_HEADS = 3, 4


def build(**settings) -> AdaptiveMatching:
    torch.manual_seed(0)
    return AdaptiveMatching(STUDENT_HEADS, TEACHER_HEADS, **settings)


def inputs():
    teacher = tuple(t.detach() for t in sides(TEACHER_HEADS, 6, seed=7))
    return sides(STUDENT_HEADS, 4), teacher


def literal_likeness(name, x, y):
    """Similarities of heads ``(B, M, M)``, by the words of the descriptors."""
    logits = literal_relation(x, y)
    images = []
    for image in logits:
        maps = [literal_softmax(head) for head in image]
        if name == 'mean_logit':
            features = [head.mean().view(1) for head in image]
        elif name == 'literal':
            features = [head.mean().view(1) for head in maps]
        elif name == 'received':
            features = [sum(head) / len(head) * len(head) ** 0.5 for head in maps]
        else:
            features = [head.flatten() for head in maps]
        images.append(
            torch.stack([torch.stack([a @ b for b in features]) for a in features])
        )
    return torch.stack(images)


def literal_project(projection, likeness):
    """One perceptron a head, unit length at the end."""
    heads = []
    for m in range(likeness.shape[1]):
        hidden = F.linear(
            likeness[:, m], projection.weight1[m].T, projection.bias1[m]
        ).clamp(min=0)
        out = F.linear(hidden, projection.weight2[m].T, projection.bias2[m])
        heads.append(out / (out * out).sum(-1, keepdim=True).sqrt())
    return torch.stack(heads, 1)


def literal_weights(matching, name, student, teacher, detach=True):
    likeness = literal_likeness(name, *student)
    queries = literal_project(matching.query, likeness.detach() if detach else likeness)
    keys = literal_project(matching.key, literal_likeness(name, *teacher))
    scores = torch.stack(
        [(queries * keys[:, m : m + 1]).sum(-1) for m in range(keys.shape[1])], -1
    )
    exponentials = (scores / matching.temperature).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def literal_loss(weights, student, teacher):
    """The double loop of Eq. 7, divided by batch and student heads."""
    matrix = literal_matrix(
        'kl', literal_relation(*student), literal_relation(*teacher)
    )
    total = 0.0
    for image in range(len(matrix)):
        for m2 in range(STUDENT_HEADS):
            for m1 in range(TEACHER_HEADS):
                weight = weights[image, m2, m1]
                total = total + weight * matrix[image, m2, m1]
    return total / len(matrix) / STUDENT_HEADS


@pytest.mark.parametrize('name', DESCRIPTORS)
def test_descriptors(name):
    x, y = (side.detach() for side in sides(3, 4))
    torch.testing.assert_close(DESCRIPTORS[name](x, y), literal_likeness(name, x, y))


@pytest.mark.parametrize('detach', [True, False])
@pytest.mark.parametrize('name', ['mean_logit', 'received', 'gram'])
def test_loss_and_all_gradients(name, detach):
    matching = build(descriptor=name, detach_query=detach, temperature=0.5)
    student, teacher = inputs()
    leaves = (*student, *matching.parameters())
    ours = matching(student, teacher, relation_kl)
    weights = literal_weights(matching, name, student, teacher, detach)
    loss = literal_loss(weights, student, teacher)
    torch.testing.assert_close(ours.weights, weights.detach())
    torch.testing.assert_close(ours.loss, loss)
    ours_all, reference = (
        torch.autograd.grad(value, leaves) for value in (ours.loss, loss)
    )
    for left, right in zip(ours_all, reference, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-6)
        assert left.abs().max() > 1e-4


def test_detached_query_leaves_the_student_the_gradient_of_fixed_weights():
    student, teacher = inputs()
    gradients = {}
    for detach in (True, False):
        matching = build(detach_query=detach)
        out = matching(student, teacher, relation_kl)
        gradients[detach] = torch.autograd.grad(out.loss, student)
    fixed = torch.autograd.grad(literal_loss(out.weights, student, teacher), student)
    for ours, reference, through in zip(
        gradients[True], fixed, gradients[False], strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-6)
        assert (through - reference).abs().max() > 1e-4


def test_the_mean_of_softmaxed_maps_is_a_constant():
    """Eq. 4 read literally: no image and no student moves the weights."""
    weights = {}
    for name in DESCRIPTORS:
        matching = build(descriptor=name, temperature=0.1)
        weights[name] = torch.cat(
            [
                matching.head_weights(
                    sides(STUDENT_HEADS, 4, seed=seed),
                    sides(TEACHER_HEADS, 6, seed=seed + 9),
                ).detach()
                for seed in range(4)
            ]
        )
    likeness = DESCRIPTORS['literal'](*sides(5, 4, length=50))
    torch.testing.assert_close(likeness, torch.full_like(likeness, 50**-2.0))
    spread = {name: w.std(0).max().item() for name, w in weights.items()}
    assert spread.pop('literal') < 1e-6
    assert min(spread.values()) > 1e-3


def test_rows_sum_to_one_within_the_bounds_of_unit_vectors():
    """Inner products of -1..1 bound the weights of 16 teacher heads to 0.33."""
    torch.manual_seed(0)
    matching = AdaptiveMatching(5, 16)
    w = matching.head_weights(sides(5, 4, batch=8), sides(16, 6, batch=8))
    torch.testing.assert_close(w.sum(-1), torch.ones(8, 5))
    assert w.max() <= math.e / (math.e + 15 / math.e)
    assert w.min() >= 1 / math.e / (1 / math.e + 15 * math.e)


def test_one_weight_matrix_for_the_batch():
    student, teacher = inputs()
    matching = build(per_sample=False)
    out = matching(student, teacher, relation_kl)
    assert out.weights.shape == (2, STUDENT_HEADS, TEACHER_HEADS)
    assert torch.equal(out.weights[0], out.weights[1])
    means = [
        literal_likeness('mean_logit', *side).mean(0, keepdim=True)
        for side in (student, teacher)
    ]
    queries = literal_project(matching.query, means[0])
    keys = literal_project(matching.key, means[1])
    expected = (queries @ keys.transpose(1, 2)).softmax(-1)
    torch.testing.assert_close(out.weights[:1], expected.detach())
    expected = literal_loss(out.weights, student, teacher)
    torch.testing.assert_close(out.loss, expected)


def test_uniform_weights_learn_nothing():
    student, teacher = inputs()
    matching = build(uniform=True)
    assert not list(matching.parameters())
    out = matching(student, teacher, relation_kl)
    assert torch.equal(out.weights, torch.full((2, 3, 4), 0.25))
    torch.testing.assert_close(out.loss, literal_loss(out.weights, student, teacher))


def test_autocast_changes_nothing():
    student, teacher = inputs()
    matching = build(descriptor='received')
    expected = matching(student, teacher, relation_kl)
    with torch.autocast('cpu', torch.bfloat16):
        out = matching(student, teacher, relation_kl)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(out.weights, expected.weights)


def test_sinkhorn_balances_rows_and_columns():
    scores = draw(4, 3, 5, scale=3.0)
    weights = sinkhorn(scores)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 3))
    torch.testing.assert_close(weights.sum(-2), torch.full((4, 5), 3 / 5))
    # what balances is a bias for each teacher head and nothing else
    left = weights.log() - scores
    left = left - left[:, :1] - left[:, :, :1] + left[:, :1, :1]
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-4)


def test_sinkhorn_gradient():
    scores = draw(1, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(sinkhorn, scores)


def train_router(balance, teacher_heads=8, student_heads=6, length=12):
    """Free student maps and the weights, trained together on frozen teacher maps.

    Against a unit matrix as keys, queries are the logits themselves. Teacher heads go
    from diffuse to sharp.
    """
    torch.manual_seed(0)

    def with_unit_keys(logits):
        keys = torch.eye(length).expand(logits.shape)
        return logits * length**0.5, keys

    sharpness = torch.linspace(0.5, 6, teacher_heads)[:, None, None]
    teacher = with_unit_keys(sharpness * torch.randn(1, teacher_heads, length, length))
    maps = torch.randn(1, student_heads, length, length).mul_(0.01).requires_grad_()
    matching = AdaptiveMatching(
        student_heads, teacher_heads, temperature=0.1, balance=balance
    )
    optimizer = torch.optim.Adam([maps, *matching.parameters()], lr=0.05)
    for _ in range(200):
        out = matching(with_unit_keys(maps), teacher, relation_kl)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    return out


def test_the_free_router_collapses_and_sinkhorn_does_not():
    free = train_router(None)
    assert free.weights[0, :, 0].min() > 0.99, 'all on the most diffuse teacher head'
    assert used_heads(free.weights) < 1.05
    assert head_similarity(free.student_logits) > 0.99
    balanced = train_router('sinkhorn')
    columns = balanced.weights.sum(1)
    torch.testing.assert_close(columns, torch.full((1, 8), 6 / 8), rtol=0.02, atol=0)
    assert used_heads(balanced.weights) > 7.9
    assert head_similarity(balanced.student_logits) < 0.5
    # the collapsed one has by far the lower loss
    assert free.loss < 0.1 * balanced.loss


@pytest.mark.parametrize('name', [*DESCRIPTORS, 'uniform'])
def test_double_precision_stays(name):
    settings = dict(uniform=True) if name == 'uniform' else dict(descriptor=name)
    matching = build(**settings).double()
    student, teacher = (tuple(t.double() for t in side) for side in inputs())
    weights = matching.head_weights(student, teacher)
    assert weights.dtype == torch.float64
    if name == 'uniform':
        assert weights.unique().tolist() == [1 / TEACHER_HEADS]
    else:
        expected = literal_weights(matching, name, student, teacher)
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)
    loss = matching(student, teacher, relation_kl).loss
    assert loss.dtype == torch.float64


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(descriptor='mean'), "descriptor='mean' .* 'mean_logit', 'received'"),
        (dict(balance='entropy'), "balance='entropy' .* use 'sinkhorn'"),
        (dict(temperature=0.0), 'temperature=0.0 .* a number above 0'),
        (dict(embed_dims=0), 'embed_dims=0 .* at least 1'),
    ],
)
def test_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)
