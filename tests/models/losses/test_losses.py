"""Loss values and gradients against plain loops over numbers."""

import math

import pytest
import torch

from medic_mm.errors import UserError
from medic_mm.models.losses import (
    ClsAlignmentLoss,
    TokenDistillationLoss,
    cls_alignment,
    normalise_target,
    token_distillation,
)


def literal_norm(values):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + 1e-6) for v in values]


def literal_token(prediction, target, beta):
    total, count = 0.0, 0
    for image_p, image_t in zip(prediction, target, strict=True):
        for token_p, token_t in zip(image_p, image_t, strict=True):
            goal = literal_norm([float(v) for v in token_t])
            for p, t in zip(token_p, goal, strict=True):
                gap = (p - t).abs()
                total = total + (gap**2 / (2 * beta) if gap < beta else gap - beta / 2)
                count += 1
    return total / count


def literal_cls(prediction, target, tau):
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        goal = literal_norm([float(v) for v in t])
        dot = sum(a * b for a, b in zip(p, goal, strict=True))
        length = sum(a * a for a in p) ** 0.5 * math.sqrt(sum(b * b for b in goal))
        total = total + (1 - dot / length) / tau
    return total / len(prediction)


def draw(*shape, scale=1.0):
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).double()


def compare(ours, literal, prediction):
    values, gradients = [], []
    for function in (ours, literal):
        leaf = prediction.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        values.append(value.item())
        gradients.append(leaf.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('beta', [0.3, 1.0, 2.0])
def test_token_distillation(beta):
    prediction, target = draw(2, 3, 7, scale=2.0), draw(2, 3, 7, scale=5.0) + 3
    compare(
        lambda p: token_distillation(p, target, beta),
        lambda p: literal_token(p, target, beta),
        prediction,
    )


@pytest.mark.parametrize('tau', [0.1, 1.0])
def test_cls_alignment(tau):
    prediction, target = draw(4, 9), draw(4, 9, scale=4.0) - 1
    compare(
        lambda p: cls_alignment(p, target, tau),
        lambda p: literal_cls(p, target, tau),
        prediction,
    )


def test_modules_pass_their_settings_on():
    prediction, target = draw(2, 3, 5), draw(2, 3, 5)
    assert torch.equal(
        TokenDistillationLoss(0.5)(prediction, target),
        token_distillation(prediction, target, 0.5),
    )
    assert torch.equal(
        ClsAlignmentLoss(0.1)(prediction[:, 0], target[:, 0]),
        cls_alignment(prediction[:, 0], target[:, 0], 0.1),
    )


def test_target_scale_and_shift_do_not_matter():
    target = draw(2, 3, 64)
    torch.testing.assert_close(
        normalise_target(target), normalise_target(target * 9 + 4), atol=1e-5, rtol=1e-4
    )


def test_half_precision_is_computed_in_full():
    prediction, target = draw(2, 3, 5).bfloat16(), draw(2, 3, 5).bfloat16()
    loss = token_distillation(prediction, target)
    assert loss.dtype == torch.float32
    expected = token_distillation(prediction.float(), target.float())
    assert torch.equal(loss, expected)


@pytest.mark.parametrize('loss', [TokenDistillationLoss, ClsAlignmentLoss])
@pytest.mark.parametrize('value', [0.0, -1.0, math.nan, math.inf, True, None, '1'])
def test_refuses_a_divisor_that_is_not_a_number_above_0(loss, value):
    with pytest.raises(UserError, match=f'of {loss.__name__} must be a .*number.*0$'):
        loss(value)
