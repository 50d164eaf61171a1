"""The toy case of docs/mimhd.md: what the relation loss rewards the head weights for.

    python benchmarks/head_weights.py

16 fixed teacher maps over 64 tokens, entropies from 4.1 to 0.8 nats (uniform: 4.16); 12
student maps that are free to take any form; unit vectors as queries and keys. KL, Adam,
1500 steps, three seeds. No network stands between: it shows the pull of the loss, not
what a student reaches. About 2 minutes on one core; ``--steps`` shortens it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medic_mm.models.losses import relation_kl
from medic_mm.models.losses.relation import relation_entropy
from medic_mm.models.mimhd.adaptive import sinkhorn
from medic_mm.models.mimhd.matching import head_similarity, used_heads, weight_entropy

TOKENS, TEACHER_HEADS, STUDENT_HEADS, WIDTH = 64, 16, 12, 64
#: Name to temperature and balance; None: uniform weights.
ROUTERS: dict[str, tuple[float, bool] | None] = {
    'uniform': None,
    'temperature 1': (1.0, False),
    'temperature 0.1': (0.1, False),
    'sinkhorn, temperature 1': (1.0, True),
    'sinkhorn, temperature 0.1': (0.1, True),
}


def make_teacher() -> Tensor:
    """Logits ``(1, M1, N, N)`` scaled by bisection to the wanted entropies."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, TEACHER_HEADS, TOKENS, TOKENS)
    logits = torch.randn(shape, generator=generator)
    wanted = torch.linspace(4.1, 0.8, TEACHER_HEADS)
    low, high = torch.zeros(TEACHER_HEADS), torch.full((TEACHER_HEADS,), 50.0)
    for _ in range(50):
        middle = (low + high) / 2
        entropy = relation_entropy(logits * middle.view(1, -1, 1, 1))[0]
        low = torch.where(entropy > wanted, middle, low)
        high = torch.where(entropy > wanted, high, middle)
    return logits * high.view(1, -1, 1, 1)


def make_router(
    settings: tuple[float, bool] | None, seed: int
) -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
    """A function that gives W ``(1, M2, M1)``, and what it learns."""
    if settings is None:
        uniform = torch.full((1, STUDENT_HEADS, TEACHER_HEADS), 1 / TEACHER_HEADS)
        return lambda: uniform, []
    temperature, balanced = settings
    torch.manual_seed(100 + seed)
    query = nn.Parameter(torch.randn(1, STUDENT_HEADS, WIDTH))
    key = nn.Parameter(torch.randn(1, TEACHER_HEADS, WIDTH))

    def weights() -> Tensor:
        unit_query, unit_key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        logits = unit_query @ unit_key.transpose(1, 2) / temperature
        return sinkhorn(logits) if balanced else logits.softmax(-1)

    return weights, [query, key]


def train(
    teacher: Tensor, settings: tuple[float, bool] | None, seed: int, steps: int
) -> list[float]:
    """Loss, entropy of W, used heads and similarity of student heads at the end."""
    weights, parameters = make_router(settings, seed)
    torch.manual_seed(seed)
    student = nn.Parameter(0.01 * torch.randn(1, STUDENT_HEADS, TOKENS, TOKENS))
    optimizer = torch.optim.Adam([student, *parameters], lr=0.02)
    for _ in range(steps):
        loss = (relation_kl(student, teacher) * weights()).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        final = weights()
        health = weight_entropy(final), used_heads(final), head_similarity(student)
    return [loss.item(), *(float(value) for value in health)]


def main() -> None:
    """Parse, train all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=1500)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    teacher = make_teacher()
    print('| W | loss | entropy of W | used heads | cosine of student heads |')
    print('|---|---:|---:|---:|---:|')
    for name, settings in ROUTERS.items():
        runs = [train(teacher, settings, seed, args.steps) for seed in args.seeds]
        cells = [f'{min(v):.2f}-{max(v):.2f}' for v in zip(*runs, strict=True)]
        print(f'| {name} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
