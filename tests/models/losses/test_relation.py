"""Distances of token relations against plain loops over pairs of heads and rows."""

import math

import pytest
import torch
from literal_relations import (
    draw,
    literal_matrix,
    literal_relation,
    literal_softmax,
    sides,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medic_mm.models.losses import (
    relation_cross_entropy,
    relation_entropy,
    relation_kl,
    relation_logits,
    relation_mse,
)

DISTANCES = dict(kl=relation_kl, cross_entropy=relation_cross_entropy, mse=relation_mse)
STUDENT_HEADS, TEACHER_HEADS = 3, 4


def check(ours, reference, leaves, rtol=1e-4, atol=1e-7):
    """Same value and same gradient in every leaf."""
    results = []
    for function in (ours, reference):
        value = function()
        results.append((value, *torch.autograd.grad(value, leaves)))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol)
    assert all(gradient.abs().max() > 100 * atol for gradient in results[0][1:])


def test_logits_and_their_gradient():
    x, y = sides(3, 4)
    upstream = draw(2, 3, 5, 5)
    check(
        lambda: (relation_logits(x, y) * upstream).sum(),
        lambda: (literal_relation(x, y) * upstream).sum(),
        (x, y),
        atol=1e-6,
    )


@pytest.mark.parametrize('name', DISTANCES)
def test_distance_equals_the_double_loop_with_all_gradients(name):
    """Also the gradient of the weights, which a dropped entropy would put wrong."""
    student = draw(2, STUDENT_HEADS, 5, 5, scale=2.0).requires_grad_()
    teacher = draw(2, TEACHER_HEADS, 5, 5, seed=1, scale=2.0)
    scores = draw(2, STUDENT_HEADS, TEACHER_HEADS).requires_grad_()

    def total(matrix):
        return (matrix * scores.softmax(-1)).sum(-1).mean()

    check(
        lambda: total(DISTANCES[name](student, teacher)),
        lambda: total(literal_matrix(name, student, teacher)),
        (student, scores),
    )


def mixed_first(x, y, teacher, weights):
    """One target map a student head: the teacher's maps mixed by the weights."""
    maps = literal_softmax(relation_logits(*teacher).detach())
    target = torch.einsum('bnm,bmij->bnij', weights, maps)
    cross_entropy = -(target * relation_logits(x, y).log_softmax(-1)).sum(-1).mean(-1)
    entropy = -(maps * maps.log()).sum(-1).mean(-1)
    return (cross_entropy - torch.einsum('bnm,bm->bn', weights, entropy)).mean()


def without_maps(x, y, teacher, weights):
    """The student's map never meets the teacher's: teacher maps average its keys."""
    maps = literal_softmax(relation_logits(*teacher).detach())
    logsumexp = relation_logits(x, y).logsumexp(-1).mean(-1)
    keys = torch.einsum('bmij,bnjd->bnmid', maps, y)
    products = torch.einsum('bnid,bnmid->bnm', x, keys) / math.sqrt(x.shape[-1])
    cross_entropy = logsumexp[:, :, None] - products / x.shape[2]
    entropy = -(maps * maps.log()).sum(-1).mean(-1)
    return (weights * (cross_entropy - entropy[:, None])).sum(-1).mean()


def double_loop(x, y, teacher, weights):
    matrix = literal_matrix(
        'kl', literal_relation(x, y), literal_relation(*teacher).detach()
    )
    return (weights * matrix).sum(-1).mean()


@pytest.mark.parametrize('form', [double_loop, mixed_first, without_maps])
def test_other_ways_to_the_same_loss(form):
    """Value and gradients of student features and weights, widths unlike."""
    x, y = sides(STUDENT_HEADS, 4)
    teacher = [t.detach() for t in sides(TEACHER_HEADS, 6, seed=7)]
    scores = draw(2, STUDENT_HEADS, TEACHER_HEADS).requires_grad_()

    def ours():
        matrix = relation_kl(relation_logits(x, y), relation_logits(*teacher))
        return (matrix * scores.softmax(-1)).sum(-1).mean()

    check(ours, lambda: form(x, y, teacher, scores.softmax(-1)), (x, y, scores))


@pytest.mark.parametrize('name', DISTANCES)
def test_gradient_in_double_precision(name):
    student = draw(1, 2, 3, 3).double().requires_grad_()
    teacher = draw(1, 3, 3, 3, seed=1).double()
    assert torch.autograd.gradcheck(lambda s: DISTANCES[name](s, teacher), student)


def test_no_distance_and_no_gradient_where_student_equals_teacher():
    teacher = draw(2, 3, 6, 6, scale=3.0)
    student = teacher.clone().requires_grad_()
    matrix = relation_kl(student, teacher)
    own = matrix.diagonal(dim1=1, dim2=2)
    own.sum().backward()
    torch.testing.assert_close(own, torch.zeros(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        student.grad, torch.zeros_like(student), rtol=0, atol=1e-7
    )
    others = matrix.detach() + torch.eye(3)
    assert others.min() > 0.1


@pytest.mark.parametrize('name', DISTANCES)
def test_probabilities_of_zero_stay_finite(name):
    """Both maps have exact zeros in fp32, at the same and at other places."""
    far = 1000.0
    student = torch.full((1, 2, 4, 4), -far)
    student[0, 0, :, 0], student[0, 1, :, 1] = 0.0, 0.0
    teacher = student[:, :1].clone()
    assert (teacher.softmax(-1) == 0).any()
    student.requires_grad_()
    matrix = DISTANCES[name](student, teacher)
    matrix.sum().backward()
    # all weight on the same key, and on another key
    expected = torch.tensor([[[0.0], [2 / 4 if name == 'mse' else far]]])
    torch.testing.assert_close(matrix.detach(), expected)
    assert student.grad.isfinite().all()
    if name != 'mse':
        assert student.grad[0, 1].abs().max() == pytest.approx(1 / 4)


def test_entropy_of_rows():
    logits = draw(2, 3, 5, 5, scale=2.0)
    maps = literal_softmax(logits)
    expected = -(maps * maps.log()).sum(-1).mean(-1)
    torch.testing.assert_close(relation_entropy(logits), expected)
    assert relation_entropy(torch.zeros(1, 1, 7, 7)).item() == pytest.approx(
        math.log(7)
    )


@pytest.mark.parametrize('name', DISTANCES)
def test_the_teacher_is_a_constant(name):
    student = draw(1, 2, 3, 3).requires_grad_()
    teacher = draw(1, 2, 3, 3, seed=1).requires_grad_()
    DISTANCES[name](student, teacher).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize('name', DISTANCES)
def test_half_precision_is_computed_in_full(name):
    """Inside autocast and from bfloat16 features, as in mixed-precision training."""
    student = [s.detach().bfloat16() for s in sides(3, 4)]
    teacher = [t.detach().bfloat16() for t in sides(4, 6, seed=5)]
    expected = DISTANCES[name](
        relation_logits(*(s.float() for s in student)),
        relation_logits(*(t.float() for t in teacher)),
    )
    with torch.autocast('cpu', torch.bfloat16):
        matrix = DISTANCES[name](relation_logits(*student), relation_logits(*teacher))
    assert matrix.dtype == torch.float32
    assert torch.equal(matrix, expected)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().size() // 4)
        return out


@pytest.mark.parametrize('name', DISTANCES)
def test_no_tensor_of_all_pairs_of_maps(name):
    x, y = sides(3, 4, length=20)
    teacher = [t.detach() for t in sides(4, 6, seed=5, length=20)]
    with LargestTensor() as largest:
        matrix = DISTANCES[name](relation_logits(x, y), relation_logits(*teacher))
        matrix.sum().backward()
    assert largest.elements == 2 * 4 * 20 * 20
