"""The linear probe against torch's own layers, one learning rate at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medic_mm.errors import UserError
from medic_mm.evaluation.linear_probe import _train, linear_probe
from medic_mm.sampling import held_out


def clusters(count: int, seed: int, spread: float = 1.0) -> tuple:
    """Four classes around four corners, in columns of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    corners = torch.eye(4).repeat(1, 2) * 3
    features = corners[labels] + spread * torch.randn(count, 8, generator=generator)
    return features * torch.logspace(-2, 2, 8) + 7, labels


def literal(features, labels, lr, classes, epochs, batch, momentum, seed):
    layer = torch.nn.Linear(features.shape[1], classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=momentum)
    steps = epochs * -(-len(features) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator)
        for start in range(0, len(features), batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return layer


def test_rates_side_by_side_train_as_each_alone_does():
    features, labels = clusters(50, 0)
    features = (features - features.mean(0)) / features.std(0)
    lrs = [0.01, 0.1, 0.5]
    weight, bias = _train(features, labels, lrs, 4, 3, 16, 0.9, 5)
    for i, lr in enumerate(lrs):
        layer = literal(features, labels, lr, 4, 3, 16, 0.9, 5)
        torch.testing.assert_close(weight[i], layer.weight.T, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(bias[i, 0], layer.bias, rtol=1e-4, atol=1e-6)


def test_accuracy_is_that_of_the_classifier_trained_on_all():
    train, labels = clusters(200, 0, spread=1.5)
    test, wanted = clusters(80, 1, spread=1.5)
    found = linear_probe(train, labels, test, wanted, 4, epochs=4, batch_size=32)
    mean, deviation = train.mean(0), train.std(0)
    layer = literal((train - mean) / deviation, labels, found.lr, 4, 4, 32, 0.9, 0)
    right = layer((test - mean) / deviation).argmax(1) == wanted
    assert found.top1 == pytest.approx(100 * right.double().mean().item())
    assert 50 < found.top1 < 100


def test_the_rate_is_chosen_on_held_out_training_images():
    train, labels = clusters(200, 0, spread=4)
    test, wanted = clusters(80, 1, spread=4)
    lrs = [3000.0, 0.03, 300.0]
    found = linear_probe(train, labels, test, wanted, 4, lrs=lrs, epochs=2)
    scaled = (train - train.mean(0)) / train.std(0)
    held = held_out(labels, 10, 0).nonzero()[:, 0].tolist()
    assert [sum(int(labels[i]) == c for i in held) for c in range(4)] == [5] * 4
    rest = [i for i in range(200) if i not in held]
    accuracies = []
    for lr in lrs:
        layer = literal(scaled[rest], labels[rest], lr, 4, 2, 256, 0.9, 0)
        right = layer(scaled[held]).argmax(1) == labels[held]
        accuracies.append(100 * right.double().mean().item())
    assert len(set(accuracies)) > 1
    assert found.held_out_top1 == pytest.approx(max(accuracies))
    assert found.lr == lrs[accuracies.index(max(accuracies))]
    # wrong test labels change the result and not the choice
    shifted = linear_probe(train, labels, test, (wanted + 1) % 4, 4, lrs=lrs, epochs=2)
    assert (shifted.lr, shifted.held_out_top1) == (found.lr, found.held_out_top1)
    assert shifted.top1 < found.top1


@pytest.mark.parametrize('order', ['taking turns', 'sorted', 'shuffled'])
def test_the_order_of_the_classes_decides_nothing(order):
    """Classes that take turns once left one class out of the trial: 0 percent."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(200) % 10
    if order == 'sorted':
        labels = labels.sort().values
    elif order == 'shuffled':
        labels = labels[torch.randperm(200, generator=generator)]
    noise = 0.1 * torch.randn(200, 10, generator=generator)
    features = torch.eye(10)[labels] + noise
    found = linear_probe(features, labels, features, labels, 10)
    assert (found.held_out_top1, found.top1) == (100, 100)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(lrs=[]), r'lrs=\[\]'),
        (dict(lrs=[0.0]), 'above 0'),
        (dict(epochs=0), 'epochs=0'),
    ],
)
def test_refuses_settings(settings, words):
    features, labels = clusters(20, 0)
    with pytest.raises(ValueError, match=words):
        linear_probe(features, labels, features, labels, 4, **settings)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(train=torch.zeros(20)), r'train_feats has shape \(20,\)'),
        (dict(test=torch.zeros(20, 5)), '8 dimensions but test_feats 5'),
        (dict(labels=torch.zeros(19).long()), r'train_labels has shape \(19,\)'),
        (dict(labels=torch.arange(20)), 'holds classes 0 to 19 but num_classes=4'),
        (dict(wanted=torch.full((20,), 4)), 'test_labels holds classes 4 to 4'),
        (dict(labels=None), 'train_labels is None'),
        (
            dict(test=torch.zeros(0, 8), wanted=torch.zeros(0).long()),
            'there are no test images',
        ),
    ],
)
def test_refuses_what_does_not_fit(change, words):
    features, labels = clusters(20, 0)
    given = dict(train=features, labels=labels, test=features, wanted=labels)
    with pytest.raises(UserError, match=words):
        linear_probe(*{**given, **change}.values(), 4)


def test_refuses_broken_features():
    features, labels = clusters(20, 0)
    broken = features.clone()
    broken[3, 1] = float('nan')
    with pytest.raises(ValueError, match='test features have NaN'):
        linear_probe(features, labels, broken, labels, 4)
    with pytest.raises(ValueError, match='needs 10 or more'):
        linear_probe(features[:9], labels[:9], features, labels, 4)
    with pytest.raises(UserError, match='20 training images of as many classes'):
        linear_probe(features, torch.arange(20), features, labels, 20)
