"""A linear classifier on features that were computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.evaluation.knn import check_features, check_labels
from medic_mm.sampling import held_out

#: Learning rates to choose from, for features of deviation 1 and batches of 256.
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
#: One of so many training images of a class is held out for that choice.
HELD_OUT = 10


@dataclass(frozen=True)
class LinearProbe:
    """What a linear probe found.

    Attributes:
        top1: Accuracy on the test images, percent.
        lr: The learning rate chosen.
        held_out_top1: Accuracy of that choice on the training images held out, percent.
    """

    top1: float
    lr: float
    held_out_top1: float


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    lrs: Sequence[float] = LEARNING_RATES,
    epochs: int = 50,
    batch_size: int = 256,
    momentum: float = 0.9,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LinearProbe:
    """Train a linear classifier on fixed features and test it.

    Columns are brought to mean 0 and deviation 1 by the training features (what a
    BatchNorm without weights does over the whole set). SGD with a cosine, no weight
    decay. The learning rate is chosen on a tenth of the training images of each class,
    drawn from the seed; the classifier that is tested was then trained on all of them.
    The test images choose nothing.

    Args:
        train_features: ``(N, D)``.
        train_labels: int64 ``(N,)``.
        test_features: ``(M, D)``.
        test_labels: int64 ``(M,)``.
        num_classes: Number of classes.
        lrs: Learning rates to choose from.
        epochs: Times that each training image is seen.
        batch_size: Images for a step.
        momentum: Of SGD.
        seed: Of the images held out and of the order of images; nothing else is
            random.
        device: Where to compute; default: the features' own.

    Raises:
        UserError: for settings out of range, shapes or labels that do not fit, fewer
            than ten images, no class with two of them, features with NaN or infinity.
    """
    check_features(train_features, train_labels, test_features, num_classes)
    check_labels('test_labels', test_labels, len(test_features), num_classes)
    _check(train_features, test_features, lrs, epochs, batch_size)
    if len(train_labels.unique()) == len(train_labels):
        raise UserError(
            f'{len(train_labels)} training images of as many classes: the linear probe '
            'holds one image out of each class, so it needs classes with two or more'
        )
    where = train_features.device if device is None else torch.device(device)
    mean = train_features.mean(dim=0)
    deviation = train_features.std(dim=0).clamp_min(1e-6)
    train, test = (
        ((x - mean) / deviation).to(where) for x in (train_features, test_features)
    )
    train_labels, test_labels = train_labels.to(where), test_labels.to(where)
    held = held_out(train_labels, HELD_OUT, seed).to(where)
    settings = (num_classes, epochs, batch_size, momentum, seed)
    trial = _train(train[~held], train_labels[~held], list(lrs), *settings)
    found = _accuracies(trial, train[held], train_labels[held])
    best = int(found.argmax())
    final = _train(train, train_labels, [lrs[best]], *settings)
    top1 = _accuracies(final, test, test_labels)
    return LinearProbe(float(top1[0]), float(lrs[best]), float(found[best]))


def _train(
    features: Tensor,
    labels: Tensor,
    lrs: Sequence[float],
    num_classes: int,
    epochs: int,
    batch_size: int,
    momentum: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Weights ``(P, D, C)`` and biases ``(P, 1, C)``, one classifier for each rate."""
    shape = (len(lrs), features.shape[1], num_classes)
    weight = torch.zeros(shape, device=features.device, requires_grad=True)
    bias = torch.zeros(
        (len(lrs), 1, num_classes), device=features.device, requires_grad=True
    )
    rates = torch.tensor(lrs, device=features.device).view(-1, 1, 1)
    # the rates differ, so they go into the gradients and SGD runs at rate 1
    optimizer = torch.optim.SGD([weight, bias], lr=1.0, momentum=momentum)
    steps = epochs * -(-len(features) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator)
        for rows in order.to(features.device).split(batch_size):
            scores = features[rows] @ weight + bias  # (P, B, C)
            targets = labels[rows].repeat(len(lrs))
            loss = F.cross_entropy(scores.flatten(0, 1), targets, reduction='sum')
            gradients = torch.autograd.grad(loss / len(rows), [weight, bias])
            weight.grad, bias.grad = (g * rates for g in gradients)
            optimizer.step()
            schedule.step()
    return weight.detach(), bias.detach()


def _accuracies(
    probes: tuple[Tensor, Tensor], features: Tensor, labels: Tensor
) -> Tensor:
    """Percent right for each classifier."""
    weight, bias = probes
    right = torch.zeros(len(weight), device=features.device)
    chunks = zip(features.split(8192), labels.split(8192), strict=True)
    for rows, wanted in chunks:
        right += ((rows @ weight + bias).argmax(dim=-1) == wanted).sum(dim=1)
    return right * 100 / len(features)


def _check(
    train: Tensor, test: Tensor, lrs: Sequence[float], epochs: int, batch_size: int
) -> None:
    if not lrs or min(lrs) <= 0:
        raise UserError(f'lrs={list(lrs)} must be learning rates above 0')
    if epochs < 1 or batch_size < 1:
        raise UserError(
            f'epochs={epochs} and batch_size={batch_size} must be 1 or more'
        )
    if len(train) < HELD_OUT:
        raise UserError(
            f'{len(train)} training images: the linear probe needs {HELD_OUT} or more'
        )
    if len(test) == 0:
        raise UserError('there are no test images: the linear probe needs one or more')
    for name, features in (('train', train), ('test', test)):
        if not bool(torch.isfinite(features.sum(dtype=torch.float64))):
            raise UserError(
                f'the {name} features have NaN or infinite values: the network diverged'
            )
