"""MIM-HD's head: which relations are matched, what is switched off, what is refused."""

import math

import pytest
import torch
from literal_relations import draw
from mmengine.registry import MODELS

from medic_mm.models.losses import (
    relation_cross_entropy,
    relation_kl,
    relation_logits,
    relation_mse,
)
from medic_mm.models.mimhd.head import MIMHDHead
from medic_mm.models.vit.qkv import QKV, split_qkv

STUDENT_HEADS, TEACHER_HEADS, TOKENS, PATCH = 3, 4, 17, 8
DISTANCES = dict(kl=relation_kl, cross_entropy=relation_cross_entropy, mse=relation_mse)
PIXEL_LOSS = dict(type='mmpretrain.MAEPretrainHead', norm_pix=True, patch_size=PATCH)
UNIFORM = dict(type='medic_mm.AdaptiveMatching', uniform=True)


def build(**settings) -> MIMHDHead:
    torch.manual_seed(0)
    defaults = dict(
        type='medic_mm.MIMHDHead',
        student_heads=STUDENT_HEADS,
        teacher_heads=TEACHER_HEADS,
        num_tokens=TOKENS,
        pixel_loss=PIXEL_LOSS,
    )
    return MODELS.build({**defaults, **settings})


@pytest.fixture
def student() -> QKV:
    return split_qkv(draw(2, TOKENS, 3 * 12).requires_grad_(), STUDENT_HEADS)


@pytest.fixture
def teacher() -> QKV:
    return split_qkv(draw(2, TOKENS, 3 * 24, seed=3), TEACHER_HEADS)


@pytest.fixture
def pictures():
    return draw(2, 16, 3 * PATCH**2), draw(2, 3, 32, 32)


def mean_distance(relation, student, teacher, name='kl'):
    """What uniform weights give."""
    logits = [relation_logits(*side.pair(relation)) for side in (student, teacher)]
    return DISTANCES[name](*logits).mean()


@pytest.mark.parametrize('distance', DISTANCES)
def test_relations_are_matched_and_weighted(distance, student, teacher):
    weights = dict(qk=0.5, vv=2.0, kv=1.0)
    head = build(
        relations=list(weights), matching=UNIFORM, distance=distance, weights=weights
    )
    out = head.loss(student, teacher)
    for relation, weight in weights.items():
        expected = mean_distance(relation, student, teacher, distance)
        torch.testing.assert_close(out[f'raw_{relation}'], expected.detach())
        torch.testing.assert_close(out[f'loss_{relation}'], weight * expected)
    assert len({out[f'raw_{relation}'].item() for relation in weights}) == 3


def test_class_token_may_be_left_out(student, teacher):
    head = build(matching=UNIFORM, weights=dict(qk=1.0, vv=1.0), include_cls=False)
    out = head.loss(student, teacher)
    parts = [
        QKV(*(getattr(side, part)[:, :, 1:] for part in ('query', 'key', 'value')))
        for side in (student, teacher)
    ]
    for relation in ('qk', 'vv'):
        expected = mean_distance(relation, *parts)
        torch.testing.assert_close(out[f'loss_{relation}'], expected)
        whole = mean_distance(relation, student, teacher)
        assert (expected - whole).abs() > 1e-3


@pytest.mark.parametrize(
    ('matching', 'factor'),
    [
        (dict(type='medic_mm.AdaptiveMatching'), STUDENT_HEADS),
        (dict(type='medic_mm.SelectMatching'), STUDENT_HEADS),
        (dict(type='medic_mm.AverageMatching'), 1),
        (dict(type='medic_mm.RelationHeadMatching', num_heads=6), 6),
    ],
)
def test_sum_over_student_heads_is_the_papers_literal_sum(
    matching, factor, student, teacher
):
    mean, total = (
        build(
            matching=matching, head_reduction=reduction, weights=dict(qk=1.0, vv=1.0)
        ).loss(student, teacher)
        for reduction in ('mean', 'sum')
    )
    for key in ('loss_qk', 'raw_vv'):
        torch.testing.assert_close(total[key], factor * mean[key])


def test_each_relation_has_its_own_weights(student, teacher, pictures):
    head = build()
    pixels, images = pictures
    out = head.loss(student, teacher, pixels, None, images)
    assert not torch.equal(out['entropy_qk'], out['entropy_vv'])
    out['loss_qk'].backward()
    trained = {n for n, p in head.named_parameters() if p.grad is not None}
    names = {n for n, _ in head.named_parameters()}
    assert trained == {n for n in names if n.startswith('matchings.qk.')}
    assert names - trained == {n.replace('.qk.', '.vv.') for n in trained}


def literal_patch(image, index):
    top, left = index // 4 * PATCH, index % 4 * PATCH
    patch = image[:, top : top + PATCH, left : left + PATCH]
    patch = patch.permute(1, 2, 0).flatten()  # channels last within the patch
    return (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()


@pytest.mark.parametrize('single_view', [False, True])
def test_pixel_term_is_the_error_of_the_patches_that_count(
    single_view, student, teacher, pictures
):
    pixels, images = pictures
    hidden = None
    if single_view:
        hidden = torch.zeros(2, 16, dtype=torch.bool)
        hidden[0, [1, 5, 6]] = hidden[1, [0, 9, 15]] = True
    head = build(weights=dict(qk=1.0, vv=1.0, pixel=0.1))
    out = head.loss(student, teacher, pixels, hidden, images)
    errors = [
        (pixels[i, j] - literal_patch(images[i], j)).square().mean()
        for i in range(2)
        for j in range(16)
        if hidden is None or hidden[i, j]
    ]
    expected = sum(errors) / len(errors)
    torch.testing.assert_close(out['raw_pixel'], expected)
    torch.testing.assert_close(out['loss_pixel'], 0.1 * expected)


def test_only_trained_terms_have_loss_in_their_name(student, teacher, pictures):
    """mmengine sums every key that contains `loss`."""
    pixels, images = pictures
    out = build().loss(student, teacher, pixels.requires_grad_(), None, images)
    trained = {'loss_qk', 'loss_vv', 'loss_pixel'}
    assert {k for k in out if 'loss' in k} == trained
    assert all(out[k].requires_grad for k in trained)
    assert not any(v.requires_grad for k, v in out.items() if k not in trained)
    kinds = ('entropy', 'used_heads', 'cos_student')
    logged = {f'{kind}_{relation}' for kind in kinds for relation in ('qk', 'vv')}
    assert set(out) - trained == logged | {'raw_qk', 'raw_vv', 'raw_pixel'}
    assert all(v.ndim == 0 for v in out.values())


def test_health_of_uniform_weights_and_equal_heads(student, teacher):
    alike = QKV(
        *(
            getattr(student, part)[:, :1].expand(-1, STUDENT_HEADS, -1, -1)
            for part in ('query', 'key', 'value')
        )
    )
    head = build(matching=UNIFORM, weights=dict(qk=1.0, vv=1.0))
    out = head.loss(alike, teacher)
    assert out['entropy_qk'].item() == pytest.approx(math.log(TEACHER_HEADS))
    assert out['used_heads_vv'].item() == pytest.approx(TEACHER_HEADS)
    assert out['cos_student_qk'].item() == pytest.approx(1)
    assert head.loss(student, teacher)['cos_student_qk'] < 0.9


def test_a_matching_without_weights_logs_none(student, teacher):
    head = build(
        matching=dict(type='medic_mm.AverageMatching'), weights=dict(qk=1.0, vv=0.0)
    )
    assert set(head.loss(student, teacher)) == {'loss_qk', 'raw_qk', 'cos_student_qk'}
    head = build(
        matching=dict(type='medic_mm.RelationHeadMatching', num_heads=1),
        weights=dict(qk=1.0, vv=0.0),
    )
    assert set(head.loss(student, teacher)) == {'loss_qk', 'raw_qk'}


def test_a_term_of_no_weight_is_not_built(student, teacher, pictures):
    head = build(weights=dict(qk=0.0, vv=1.0, pixel=0.0), pixel_loss=None)
    assert [head.uses(t) for t in ('qk', 'vv', 'pixel')] == [False, True, False]
    assert list(head.matchings) == ['vv']
    assert not hasattr(head, 'pixel_loss')
    assert {k for k in head.loss(student, teacher) if 'loss' in k} == {'loss_vv'}
    head = build(weights=dict(qk=0.0, vv=0.0, pixel=1.0))
    assert head.relations == ()
    assert not list(head.parameters())
    pixels, images = pictures
    out = head.loss(None, None, pixels, None, images)
    assert set(out) == {'loss_pixel', 'raw_pixel'}


def test_default_weights_and_pixel_loss():
    head = build(relations=('qq', 'kv'), pixel_loss=None)
    assert head.weights == dict(qq=1.0, kv=1.0, pixel=0.1)
    assert head.pixel_loss.norm_pix
    assert head.pixel_loss.patch_size == 16


def test_widths_are_refused_before_the_first_batch():
    head = build(matching=dict(type='medic_mm.RelationHeadMatching', num_heads=5))
    with pytest.raises(ValueError, match=r'num_heads=5 .* width 12 '):
        head.check_widths(12, 20)
    build().check_widths(12, 20)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(relations=('qk', 'qx')), 'relations=.* does not fit'),
        (dict(relations=('qk', 'qk')), 'relations=.* does not fit'),
        (dict(relations=()), 'relations=.* does not fit'),
        (dict(relations=5), r'relations=\(5,\) .* does not fit'),
        (dict(relations=(1, 2)), r'relations=\(1, 2\) .* does not fit'),
        (dict(weights=0.5), 'weights=0.5 of MIMHDHead must be a dict'),
        (dict(relations=('qqk',)), 'relations=.* does not fit'),
        (dict(distance='l1'), "distance='l1' .* 'kl', 'cross_entropy', 'mse'"),
        (dict(head_reduction='max'), "head_reduction='max' .* 'mean', 'sum'"),
        (dict(weights=dict(qk=1.0)), r"weights={'qk': 1.0} .* it must name each"),
        (dict(weights=dict(qk=1.0, vv=1.0, kk=1.0)), 'and nothing else'),
        (dict(weights=dict(qk=1.0, vv=-1.0)), 'none may be negative'),
        (dict(weights=dict(qk=0.0, vv=0.0)), 'one must be above 0'),
        (
            dict(matching=dict(type='medic_mm.OneToOneMatching')),
            'student_heads=3 and teacher_heads=4',
        ),
    ],
)
def test_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)
