"""Relations and their distances as plain loops over heads and rows: the references."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers in fp32 that depend on seed and shape alone."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator) * scale


def sides(
    heads: int, width: int, seed: int = 0, batch: int = 2, length: int = 5
) -> tuple[Tensor, Tensor]:
    """Both sides of a relation: leaves ``(B, M, N, d)`` with gradient."""
    return tuple(
        draw(batch, heads, length, width, seed=seed + i, scale=1.5).requires_grad_()
        for i in (0, 1)
    )


def literal_logits(x: Tensor, y: Tensor) -> Tensor:
    """One map ``(N, N)`` of one head: every query with every key."""
    rows = [
        torch.stack([(query * key).sum() / math.sqrt(len(query)) for key in y])
        for query in x
    ]
    return torch.stack(rows)


def literal_softmax(logits: Tensor) -> Tensor:
    exponentials = (logits - logits.max()).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def literal_distance(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of two softmaxed maps ``(N, N)``, row by row."""
    teacher = teacher.detach()
    rows = []
    for s, t in zip(student, teacher, strict=True):
        if name == 'kl':
            rows.append(sum(b * (b / a).log() for a, b in zip(s, t, strict=True)))
        elif name == 'cross_entropy':
            rows.append(sum(-b * a.log() for a, b in zip(s, t, strict=True)))
        else:
            rows.append(sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s))
    return sum(rows) / len(rows)


def literal_matrix(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Distances ``(B, M2, M1)`` of all pairs of logits ``(B, M, N, N)``."""
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            literal_distance(
                                name, literal_softmax(s), literal_softmax(t)
                            )
                            for t in teachers
                        ]
                    )
                    for s in students
                ]
            )
            for students, teachers in zip(student, teacher, strict=True)
        ]
    )


def literal_relation(x: Tensor, y: Tensor) -> Tensor:
    """Logits ``(B, M, N, N)`` of all heads."""
    return torch.stack(
        [
            torch.stack([literal_logits(a, b) for a, b in zip(p, q, strict=True)])
            for p, q in zip(x, y, strict=True)
        ]
    )
