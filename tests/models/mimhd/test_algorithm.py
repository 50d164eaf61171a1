"""One step of MIM-HD against the paper's formulas, and which parts it runs."""

import itertools

import pytest
import torch
from tiny_mimhd import (
    RELATIONS,
    build_mimhd,
    image_batch,
    initialised,
    inputs_of,
    losses_of,
    mimhd_config,
    tinymim_config,
    total,
)

from medic_mm.registry import MODELS

UNIFORM = dict(type='medic_mm.AdaptiveMatching', uniform=True)


# a step against the paper's formulas, written out


def literal_kl(student, teacher):
    """KL(teacher || student) of two heads' maps of one image, mean over rows."""

    def softmaxed(x, y):
        return (x.double() @ y.double().T / x.shape[-1] ** 0.5).softmax(-1)

    s, t = softmaxed(*student), softmaxed(*teacher)
    return sum((t[i] * (t[i] / s[i]).log()).sum() for i in range(len(t))) / len(t)


def literal_relation(student, teacher, pairs):
    """Mean over images and student heads of the weighted sum over teacher heads."""
    images, student_heads = student[0].shape[:2]
    loss = 0.0
    for image in range(images):
        for mine, theirs, weight in pairs:
            loss += weight * literal_kl(
                [part[image, mine] for part in student],
                [part[image, theirs] for part in teacher],
            )
    return loss / images / student_heads


def student_parts(model, images):
    """Final tokens and q, k, v of block 3, by the plain forward and a hook."""
    seen = []
    hook = model.backbone.layers[2].attn.qkv.register_forward_hook(
        lambda _, inputs, output: seen.append(output)
    )
    tokens = model.backbone(images)[-1]
    hook.remove()
    heads = model.backbone.num_heads(3)
    split = seen[0].unflatten(2, (3, heads, 48 // heads)).permute(2, 0, 3, 1, 4)
    return tokens, split


def literal_patches(images):
    """Row-major patches of 8x8 pixels, each scaled by its own mean and deviation."""
    rows = [image.unfold(1, 8, 8).unfold(2, 8, 8) for image in images]
    patches = torch.stack(rows).permute(0, 2, 3, 4, 5, 1).reshape(len(images), 16, -1)
    spread = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    return (patches - patches.mean(-1, keepdim=True)) / spread


def literal_pixels(model, tokens, images, hidden, views):
    """Mean squared error, each patch predicted by the view that hides it."""
    teacher, neck = model.target_generator, model.neck
    embedded = teacher.embed_for_decoder(neck.adapter(tokens))
    target, errors = literal_patches(images), []
    for view in range(views):
        for image in range(len(images)):
            missing = hidden[image] if view == 0 else ~hidden[image]
            sequence = embedded[image].clone()
            for patch in range(16):
                if missing[patch]:
                    sequence[1 + patch] = neck.mask_token[0, 0]
            predicted = teacher.decode(sequence[None])[0]
            errors += [
                (predicted[patch] - target[image, patch]).square().mean()
                for patch in range(16)
                if missing[patch]
            ]
    return torch.stack(errors).mean()


@pytest.mark.parametrize(('views', 'mask_ratio'), [(2, 0.5), (2, 0.25), (1, 0.75)])
def test_a_step_is_the_papers_formulas(views, mask_ratio):
    config = mimhd_config(matching=UNIFORM, mask_ratio=mask_ratio)
    config['neck']['views'] = views
    model = initialised(config)
    data = inputs_of(model, image_batch(2))
    images, statistics = data['inputs'], model.data_preprocessor
    teacher = model.target_generator(images, statistics.mean, statistics.std)
    tokens, (q, k, v) = student_parts(model, images)
    torch.manual_seed(7)
    hidden = model.draw_views(2, images.device).mask
    assert hidden.sum(1).tolist() == [round(16 * mask_ratio)] * 2

    pairs = [(m2, m1, 1 / 4) for m2, m1 in itertools.product(range(3), range(4))]
    expected = dict(
        loss_qk=literal_relation((q, k), (teacher.query, teacher.key), pairs),
        loss_vv=literal_relation((v, v), (teacher.value, teacher.value), pairs),
        loss_pixel=0.1 * literal_pixels(model, tokens, images, hidden, views),
    )
    losses = losses_of(model, image_batch(2))
    for key, value in expected.items():
        torch.testing.assert_close(
            losses[key].double(), value.double(), rtol=1e-4, atol=1e-6, msg=key
        )
    assert {key for key in losses if 'loss' in key} == set(expected)

    # and the same gradients, through the decoder and the relations alike
    names, parameters = zip(
        *((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True
    )
    found = torch.autograd.grad(total(losses), parameters, allow_unused=True)
    wanted = torch.autograd.grad(total(expected), parameters, allow_unused=True)
    for name, one, two in zip(names, found, wanted, strict=True):
        if name.startswith('head.'):  # uniform weights have nothing to learn
            continue
        scale = two.abs().max().item()
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * scale, msg=name)


def test_tinymim_is_the_mean_over_equal_heads():
    model = initialised(tinymim_config())
    data = inputs_of(model, image_batch(2))
    statistics = model.data_preprocessor
    teacher = model.target_generator(data['inputs'], statistics.mean, statistics.std)
    _, (q, k, v) = student_parts(model, data['inputs'])
    losses = losses_of(model, image_batch(2))
    pairs = [(head, head, 1.0) for head in range(4)]
    for key, student, target in (
        ('loss_qk', (q, k), (teacher.query, teacher.key)),
        ('loss_vv', (v, v), (teacher.value, teacher.value)),
    ):
        expected = literal_relation(student, target, pairs)
        torch.testing.assert_close(losses[key].double(), expected, rtol=1e-4, atol=1e-6)


def test_adaptive_step_hands_the_parts_on():
    model = build_mimhd()
    data = inputs_of(model, image_batch())
    images, statistics = data['inputs'], model.data_preprocessor
    teacher = model.target_generator(images, statistics.mean, statistics.std)
    tokens, student = model.backbone.forward_relations(images, 3)
    torch.manual_seed(7)
    views = model.draw_views(4, images.device)
    pixels = model.neck(tokens, views, model.target_generator)
    expected = model.head.loss(student, teacher, pixels, None, images)
    losses = losses_of(model, image_batch())
    assert set(losses) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, msg=key)


def test_pixels_alone_do_not_run_the_teachers_encoder():
    model = build_mimhd(dict(qk=0.0, vv=0.0, pixel=1.0))
    calls = []
    model.target_generator.register_forward_hook(lambda *_: calls.append('teacher'))
    losses = losses_of(model, image_batch())
    assert {key for key in losses if 'loss' in key} == {'loss_pixel'}
    assert calls == []


def test_an_earlier_student_block():
    model = build_mimhd()
    model.student_block = 2
    data = inputs_of(model, image_batch())
    calls = []
    model.head.loss = lambda student, *rest: calls.append(student) or {}
    losses_of(model, image_batch())
    expected = model.backbone.forward_relations(data['inputs'], 2)[1]
    assert torch.equal(calls[0].key, expected.key)


def test_views_hide_exact_numbers_and_differ_between_images_and_steps():
    model = build_mimhd(mask_ratio=0.3)
    one, two = (model.draw_views(64, torch.device('cpu')).mask for _ in range(2))
    assert model.num_hidden == 4, 'rounded down'
    assert (one.sum(1) == 4).all()
    assert len({tuple(row) for row in one.tolist()}) > 50
    assert not torch.equal(one, two)
    assert one.float().mean(0).max() < 0.6, 'no place is preferred'


# precision


def test_relations_are_computed_in_full_precision_under_autocast():
    model = build_mimhd(matching=UNIFORM)
    handed = []
    original = model.head.loss
    model.head.loss = lambda *parts: handed.append(parts) or original(*parts)
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, image_batch(2))
    student, teacher = handed[0][:2]
    assert student.query.dtype == torch.bfloat16, 'the test tests nothing'
    assert losses['loss_qk'].dtype == losses['loss_pixel'].dtype == torch.float32
    pairs = [(m2, m1, 1 / 4) for m2, m1 in itertools.product(range(3), range(4))]
    for relation in ('qk', 'vv'):
        expected = literal_relation(
            student.pair(relation), teacher.pair(relation), pairs
        )
        found = losses[f'loss_{relation}'].double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    total(losses).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in model.named_parameters()
        if p.requires_grad and not n.startswith('head.')
    )


# without the pixel term


TAIL = ('attn.proj', 'ln2', 'ffn')


def test_without_pixels_the_decoder_is_not_built_and_the_tail_not_run():
    model = build_mimhd(RELATIONS)
    assert model.neck is None
    assert not model.target_generator.with_decoder
    calls, block = [], model.backbone.layers[2]
    for module in (block.attn.proj, block.ln2, block.ffn, model.backbone.ln1):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    losses = losses_of(model, image_batch())
    assert calls == []
    assert {key for key in losses if 'loss' in key} == {'loss_qk', 'loss_vv'}
    total(losses).backward()
    idle = {
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
    }
    last = tuple(f'backbone.layers.2.{part}' for part in TAIL)
    assert idle == {
        n for n, _ in model.named_parameters() if n.startswith((*last, 'backbone.ln1'))
    }


def test_without_pixels_a_decoder_at_hand_is_not_called():
    teacher = MODELS.build(mimhd_config()['target_generator'])
    assert teacher.with_decoder
    config = mimhd_config(RELATIONS)
    config['target_generator'] = teacher
    model = initialised(config)
    calls = []
    for name in ('decode', 'embed_for_decoder'):
        setattr(teacher, name, lambda *_, name=name: calls.append(name))
    losses = losses_of(model, image_batch())
    assert calls == []
    assert losses['loss_qk'] > 0
