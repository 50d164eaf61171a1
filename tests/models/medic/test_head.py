"""MEDiC's head: which tokens meet which, what is switched off, what is refused."""

import pytest
import torch
from mmengine.registry import MODELS
from tiny import medic_config

from medic_mm.masking import PatchSplit, block_mask
from medic_mm.models.losses import cls_alignment, token_distillation
from medic_mm.models.medic.head import MEDiCHead
from medic_mm.models.teachers import TeacherOutput


def build(weights=None, **kwargs) -> MEDiCHead:
    torch.manual_seed(0)
    return MODELS.build(medic_config(weights=weights, **kwargs)['head'])


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    return PatchSplit.from_mask(block_mask(2, (4, 4), 6, generator, min_area=4))


@pytest.fixture
def teacher():
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(2, 16, 24, generator=generator)
    return TeacherOutput(patches, torch.randn(2, 24, generator=generator))


def tokens(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(2, 1 + count, 48, generator=generator).requires_grad_()


@pytest.mark.parametrize(
    ('positions', 'count', 'chosen'),
    [
        (None, 10, 'visible'),
        ('visible', 10, 'visible'),
        (None, 16, 'masked'),
        ('masked', 16, 'masked'),
        ('visible', 16, 'visible'),
        ('all', 16, 'all'),
    ],
)
def test_token_term_pairs_students_and_teachers(
    positions, count, chosen, split, teacher
):
    head = build(dict(token=2.0), token_positions=positions)
    student = tokens(count)
    out = head.loss(student, split, teacher)
    predictions, targets = [], []
    for i, row in enumerate(split.mask.tolist()):
        visible = [j for j in range(16) if not row[j]]
        hidden = [j for j in range(16) if row[j]]
        wanted = dict(visible=visible, masked=hidden, all=list(range(16)))[chosen]
        for j in wanted:
            # a sparse encoder returns its visible patches in row-major order
            place = visible.index(j) if count == 10 else j
            predictions.append(head.projection(student[i, 1 + place]))
            targets.append(teacher.patch_tokens[i, j])
    expected = token_distillation(torch.stack(predictions), torch.stack(targets))
    torch.testing.assert_close(out['raw_token'], expected.detach())
    torch.testing.assert_close(out['loss_token'], 2 * expected)


def test_cls_term_shares_the_projection(split, teacher):
    head = build(dict(cls=0.5, token=1.0))
    student = tokens(10)
    out = head.loss(student, split, teacher)
    expected = cls_alignment(head.projection(student[:, 0]), teacher.cls_token)
    torch.testing.assert_close(out['loss_cls'], 0.5 * expected)
    assert [n for n, _ in head.named_parameters()] == [
        'projection.weight',
        'projection.bias',
    ]


def test_pixel_term_is_the_normalised_error_of_hidden_patches(split):
    head = build(dict(pixel=0.01))
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    pixels = torch.randn(2, 16, 192, generator=generator)
    out = head.loss(tokens(10), split, None, pixels, images)
    errors = []
    for i in range(2):
        for j in range(16):
            if not split.mask[i, j]:
                continue
            top, left = j // 4 * 8, j % 4 * 8
            patch = images[i, :, top : top + 8, left : left + 8]
            patch = patch.permute(1, 2, 0).flatten()  # channels last within the patch
            patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            errors.append((pixels[i, j] - patch).square().mean())
    expected = torch.stack(errors).mean()
    torch.testing.assert_close(out['raw_pixel'], expected)
    torch.testing.assert_close(out['loss_pixel'], 0.01 * expected)


def test_only_trained_terms_have_loss_in_their_name(split, teacher):
    """mmengine sums every key that contains `loss`."""
    head = build()
    out = head.loss(
        tokens(10),
        split,
        teacher,
        torch.zeros(2, 16, 192),
        torch.randn(2, 3, 32, 32),
    )
    trained = {k for k in out if 'loss' in k}
    assert trained == {'loss_token', 'loss_cls', 'loss_pixel'}
    assert all(out[k].requires_grad for k in ('loss_token', 'loss_cls'))
    assert not any(v.requires_grad for k, v in out.items() if k not in trained)


def test_health_numbers(split, teacher):
    head = build(dict(cls=1.0))
    alike = torch.ones(2, 11, 48)
    assert head.loss(alike, split, teacher)['std_cls'] == pytest.approx(0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(512, 11, 48, generator=generator)
    large = PatchSplit.from_mask(block_mask(512, (4, 4), 6, generator, min_area=4))
    wide = TeacherOutput(torch.zeros(512, 16, 24), torch.randn(512, 24))
    assert head.loss(many, large, wide)['std_cls'] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('term', ['token', 'cls', 'pixel'])
def test_a_term_of_no_weight_is_not_built(term, split, teacher):
    head = build({term: 1.0})
    others = {'token', 'cls', 'pixel'} - {term}
    assert not any(hasattr(head, f'{other}_loss') for other in others)
    assert hasattr(head, 'projection') == (term != 'pixel')
    pixels, images = torch.zeros(2, 16, 192), torch.randn(2, 3, 32, 32)
    out = head.loss(tokens(10), split, teacher, pixels, images)
    assert {k for k in out if 'loss' in k} == {f'loss_{term}'}


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(weights=dict(pixels=1.0)), r"unknown terms \['pixels'\]"),
        (dict(weights=dict(token=-1.0)), 'none may be negative'),
        (dict(weights=dict(token=0.0)), 'one must be above 0'),
        (dict(token_positions='hidden'), "token_positions='hidden' is unknown"),
    ],
)
def test_refuses(kwargs, words):
    with pytest.raises(ValueError, match=words):
        build(**kwargs)


def test_pixel_weight_needs_its_loss():
    with pytest.raises(ValueError, match='needs pixel_loss'):
        MEDiCHead(48, 24, dict(pixel=1.0))
