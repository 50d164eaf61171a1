"""The matchings without learned weights, and the numbers that tell of a collapse."""

import math

import pytest
import torch
from literal_relations import (
    draw,
    literal_distance,
    literal_matrix,
    literal_relation,
    literal_softmax,
    sides,
)

from medic_mm.errors import UserError
from medic_mm.models import components as strategies
from medic_mm.models.losses import relation_kl, relation_mse
from medic_mm.models.mimhd.adaptive import AdaptiveMatching
from medic_mm.models.mimhd.matching import (
    AverageMatching,
    HeadMatching,
    OneToOneMatching,
    RelationHeadMatching,
    SelectMatching,
    head_similarity,
    sharpest_heads,
    used_heads,
    weight_entropy,
)

DISTANCES = dict(kl=relation_kl, mse=relation_mse)


def inputs(student_heads=3, teacher_heads=4):
    teacher = tuple(t.detach() for t in sides(teacher_heads, 6, seed=7))
    return sides(student_heads, 4), teacher


def check(matching, student, teacher, reference, distance='kl'):
    """Value and student gradient equal those of the reference."""
    out = matching(student, teacher, DISTANCES[distance])
    expected = reference()
    torch.testing.assert_close(out.loss, expected)
    for ours, literal in zip(
        torch.autograd.grad(out.loss, student),
        torch.autograd.grad(expected, student),
        strict=True,
    ):
        torch.testing.assert_close(ours, literal, rtol=1e-3, atol=1e-7)
        assert ours.abs().max() > 1e-5
    assert not out.student_logits.requires_grad
    return out


def matrix(student, teacher, distance='kl'):
    return literal_matrix(
        distance, literal_relation(*student), literal_relation(*teacher)
    )


@pytest.mark.parametrize('distance', DISTANCES)
def test_average_compares_the_mean_maps(distance):
    student, teacher = inputs()

    def reference():
        means = [
            [sum(literal_softmax(head) for head in image) / len(image) for image in r]
            for r in (literal_relation(*student), literal_relation(*teacher))
        ]
        values = [literal_distance(distance, s, t) for s, t in zip(*means, strict=True)]
        return sum(values) / len(values)

    out = check(AverageMatching(3, 4), student, teacher, reference, distance)
    assert out.weights is None
    torch.testing.assert_close(out.student_logits, literal_relation(*student).detach())


@pytest.mark.parametrize('distance', DISTANCES)
def test_one_to_one_goes_in_order(distance):
    student, teacher = inputs(4, 4)

    def reference():
        values = matrix(student, teacher, distance)
        return sum(values[b, m, m] for b in range(2) for m in range(4)) / 8

    out = check(OneToOneMatching(4, 4), student, teacher, reference, distance)
    assert out.weights is None


def test_equal_networks_have_no_loss_and_no_gradient():
    """One-to-one is W = identity."""
    teacher = sides(4, 6, seed=7)
    student = tuple(t.detach().clone().requires_grad_() for t in teacher)
    out = OneToOneMatching(4, 4)(student, teacher, relation_kl)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(0, abs=1e-6)
    for side in student:
        torch.testing.assert_close(side.grad, torch.zeros_like(side), rtol=0, atol=1e-7)
    assert all(side.grad is None for side in teacher)


@pytest.mark.parametrize(
    ('heads', 'chosen'), [((2, 0, 2), (2, 0, 2)), ([3, 1, 0], (3, 1, 0)), (1, (1,) * 3)]
)
def test_select_by_number(heads, chosen):
    student, teacher = inputs()

    def reference():
        values = matrix(student, teacher)
        return sum(values[b, m, chosen[m]] for b in range(2) for m in range(3)) / 6

    out = check(SelectMatching(3, 4, heads), student, teacher, reference)
    for m, head in enumerate(chosen):
        assert out.weights[:, m].argmax(-1).tolist() == [head, head]
    assert torch.equal(out.weights.sum(-1), torch.ones(2, 3))


def test_select_the_sharpest():
    student, teacher = inputs(student_heads=2)
    sharper = torch.tensor([1.0, 4.0, 0.3, 2.0]).view(1, 4, 1, 1)
    teacher = (teacher[0] * sharper, teacher[1])

    def reference():
        values = matrix(student, teacher)
        return sum(values[b, 0, 1] + values[b, 1, 3] for b in range(2)) / 4

    check(SelectMatching(2, 4), student, teacher, reference)


def test_sharpest_heads_by_mean_entropy():
    logits = draw(3, 4, 6, 6) * torch.tensor([3.0, 0.1, 1.0, 9.0]).view(1, 4, 1, 1)
    assert sharpest_heads(logits, 2).tolist() == [0, 3]
    assert sharpest_heads(logits, 3).tolist() == [0, 2, 3]


@pytest.mark.parametrize('num_heads', [1, 2, 6])
def test_relation_heads_split_the_joint_width(num_heads):
    student, teacher = inputs()  # widths 12 and 24

    def resplit(side):
        joint = torch.cat(side.unbind(1), -1)
        return torch.stack(joint.chunk(num_heads, -1), 1)

    def reference():
        values = matrix(map(resplit, student), map(resplit, teacher))
        return values.diagonal(dim1=1, dim2=2).mean()

    matching = RelationHeadMatching(3, 4, num_heads)
    assert matching.matched_heads == num_heads
    matching.check_widths(12, 24)
    out = check(matching, student, teacher, reference)
    assert out.student_logits.shape[1] == num_heads


def test_relation_heads_are_the_teachers_by_default():
    assert RelationHeadMatching(3, 4).num_heads == 4


def test_weight_health():
    """Uniform, one teacher head for all, and each student head its own."""
    uniform = torch.full((2, 3, 4), 0.25)
    single = torch.eye(4)[[1, 1, 1]].expand(2, 3, 4)
    own = torch.eye(4)[[0, 2, 3]].expand(2, 3, 4)
    for weights, entropy, used in (
        (uniform, math.log(4), 4),
        (single, 0, 1),
        (own, 0, 3),
        (torch.stack((own[0], single[0])), 0, 3.464102),  # loads 1/6, 3/6, 1/6, 1/6
    ):
        assert weight_entropy(weights).item() == pytest.approx(entropy, abs=1e-6)
        assert used_heads(weights).item() == pytest.approx(used, rel=1e-5)


def test_head_similarity():
    logits = draw(2, 3, 5, 5, scale=3.0)
    maps = literal_softmax(logits).flatten(2)
    pairs = [
        torch.cosine_similarity(maps[b, i], maps[b, j], 0)
        for b in range(2)
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    expected = sum(pairs) / len(pairs)
    torch.testing.assert_close(head_similarity(logits), expected)
    alike = logits[:, :1].expand(-1, 3, -1, -1)
    assert head_similarity(alike).item() == pytest.approx(1, abs=1e-6)


STRATEGIES = [
    kind
    for kind in vars(strategies).values()
    if isinstance(kind, type) and issubclass(kind, HeadMatching)
]


@pytest.mark.parametrize(
    ('build', 'words'),
    [
        (lambda: AverageMatching(0, 4), 'student_heads=0 .* at least 1'),
        (lambda: AdaptiveMatching(3, 0), 'teacher_heads=0 .* at least 1'),
        (lambda: OneToOneMatching(3, 4), 'student_heads=3 and teacher_heads=4'),
        (lambda: RelationHeadMatching(3, 4, 0), 'num_heads=0 .* at least 1'),
        (lambda: RelationHeadMatching(3, 4, 5).check_widths(12, 24), '5 .* width 12 '),
        (lambda: RelationHeadMatching(3, 4, 6).check_widths(12, 20), '6 .* width 20 '),
        (lambda: SelectMatching(3, 4, (0, 1)), 'names 2 teacher heads, .* 3 heads'),
        (
            lambda: SelectMatching(3, 4, (0, 1, 4)),
            'heads=4 .* at least 0 and at most 3',
        ),
        (lambda: SelectMatching(3, 4, -1), 'heads=-1 .* at least 0 and at most 3'),
        (lambda: SelectMatching(3, 4, 'best'), "heads='best' .* 'sharpest'"),
        (lambda: SelectMatching(5, 4), "'sharpest' .* by number"),
    ],
)
def test_refuses(build, words):
    with pytest.raises(ValueError, match=words):
        build()


NUMBERS = [
    *[(strategy, 'student_heads') for strategy in STRATEGIES],
    *[(strategy, 'teacher_heads') for strategy in STRATEGIES],
    (AdaptiveMatching, 'embed_dims'),
    (AdaptiveMatching, 'temperature'),
    (RelationHeadMatching, 'num_heads'),
    (SelectMatching, 'heads'),
]


@pytest.mark.parametrize(('strategy', 'name'), NUMBERS)
@pytest.mark.parametrize('value', [math.nan, math.inf, -1, True, 'two'])
def test_refuses_what_is_not_a_number(strategy, name, value):
    settings = {'student_heads': 3, 'teacher_heads': 3, name: value}
    with pytest.raises(UserError, match=f'{name}={value!r} of {strategy.__name__}'):
        strategy(**settings)


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('heads', [2.0, 2.5, None])
def test_refuses_heads_that_are_not_whole(strategy, heads):
    for side in ('student_heads', 'teacher_heads'):
        with pytest.raises(UserError, match=f'{side}={heads} .* whole number'):
            strategy(**{'student_heads': 2, 'teacher_heads': 2, side: heads})


@pytest.mark.parametrize(
    ('student_heads', 'teacher_heads', 'words'),
    [
        (2, 4, 'student_heads=3 .* block of the student has 2 heads'),
        (3, 5, 'teacher_heads=4 .* block of the teacher has 5 heads'),
    ],
)
def test_refuses_other_heads_than_declared(student_heads, teacher_heads, words):
    student, teacher = inputs(student_heads, teacher_heads)
    with pytest.raises(ValueError, match=words):
        AverageMatching(3, 4)(student, teacher, relation_kl)


def test_refuses_other_grids():
    with pytest.raises(ValueError, match='student has 5 tokens and the teacher 6'):
        AverageMatching(3, 4)(sides(3, 4), sides(4, 6, length=6), relation_kl)
