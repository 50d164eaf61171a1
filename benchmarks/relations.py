"""Memory and time of the relation loss beside the double loop over pairs of heads.

    python benchmarks/relations.py

One pass is the KL of every student head to every teacher head from relation logits,
weighted by W, forward and backward to the logits and to W. Beside it are the same loss
written on tensors of all pairs ``(B, M2, M1, N, N)``, in two ways: the formula, and
torch's ``kl_div``. The values and gradients of all three are compared first.

Memory: each is run once in a fresh process, after a small warm-up; what it adds is the
process's peak of resident memory (VmHWM of ``/proc/self/status``, Linux only) less its
resident memory before the pass, inputs made and touched. Where malloc keeps freed
memory for later, that counts as well. Time: the median of rounds in which all take
turns, in one process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from medic_mm.models.losses import relation_kl

Inputs = tuple[Tensor, Tensor, Tensor]
MEMORY_TARGET, TIME_TARGET = 1 / 8, 1 / 3


def formula(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """``sum t (log t - log s)`` on all pairs."""
    student = student_logits.log_softmax(-1)[:, :, None]
    teacher = teacher_logits.log_softmax(-1)[:, None]
    return (teacher.exp() * (teacher - student)).sum(-1).mean(-1)


def kl_div(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """torch's own, on all pairs."""
    student = student_logits.log_softmax(-1)[:, :, None]
    teacher = teacher_logits.softmax(-1)[:, None]
    pairs = torch.broadcast_tensors(student, teacher)
    return F.kl_div(*pairs, reduction='none').sum(-1).mean(-1)


OURS = 'relation_kl'
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    OURS: relation_kl,
    'double loop, formula': formula,
    'double loop, kl_div': kl_div,
}


def make_inputs(args: argparse.Namespace, tokens: int) -> Inputs:
    """Student logits, teacher logits, scores of W."""
    generator = torch.Generator().manual_seed(0)
    m2, m1 = args.student_heads, args.teacher_heads
    shapes = (m2, tokens, tokens), (m1, tokens, tokens), (m2, m1)
    student, teacher, scores = (
        torch.randn(args.batch, *shape, generator=generator) for shape in shapes
    )
    return student.requires_grad_(), teacher, scores.requires_grad_()


def run(name: str, inputs: Inputs) -> tuple[Tensor, ...]:
    """One pass: the loss and its gradients."""
    student, teacher, scores = inputs
    loss = (FORMS[name](student, teacher) * scores.softmax(-1)).sum(-1).mean()
    return loss.detach(), *torch.autograd.grad(loss, (student, scores))


def resident(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in MiB."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f'/proc/self/status has no {field}: this needs Linux')


def added_memory(name: str, args: argparse.Namespace) -> float:
    """Peak of one pass over what was resident before, in MiB."""
    run(name, make_inputs(args, tokens=8))
    inputs = make_inputs(args, args.tokens)
    before = resident('VmRSS')
    run(name, inputs)
    return resident('VmHWM') - before


def in_fresh_process(name: str) -> float:
    """:func:`added_memory` with the same settings."""
    command = [sys.executable, __file__, *sys.argv[1:], '--memory-of', name]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(out.stdout)


def compare(inputs: Inputs) -> None:
    """Refuse to time forms that disagree."""
    expected = run('double loop, formula', inputs)
    for name in FORMS:
        for ours, literal in zip(run(name, inputs), expected, strict=True):
            torch.testing.assert_close(ours, literal, rtol=1e-3, atol=1e-7)


def measure_times(inputs: Inputs, rounds: int) -> dict[str, float]:
    """Median milliseconds of a pass of each form."""
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(rounds):
        for name in FORMS:
            start = time.perf_counter()
            run(name, inputs)
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def parse_args() -> argparse.Namespace:
    """The sizes; the paper's ViT-B student and ViT-L teacher by default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--tokens', type=int, default=197)
    parser.add_argument('--student-heads', type=int, default=12)
    parser.add_argument('--teacher-heads', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--memory-of', choices=list(FORMS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(added_memory(args.memory_of, args))
        return
    memory = {name: in_fresh_process(name) for name in FORMS}
    inputs = make_inputs(args, args.tokens)
    compare(inputs)
    times = measure_times(inputs, args.rounds)
    print(
        f'batch {args.batch}, {args.tokens} tokens, {args.student_heads} student and '
        f'{args.teacher_heads} teacher heads, fp32, {args.threads} thread(s); '
        'forward and backward'
    )
    print(f'{"":<22} {"added memory":>13} {"time":>11}   relation_kl over it')
    for name in FORMS:
        print(
            f'{name:<22} {memory[name]:9.1f} MiB {times[name]:8.1f} ms   '
            f'memory 1/{memory[name] / memory[OURS]:.1f}, '
            f'time 1/{times[name] / times[OURS]:.1f}'
        )
    loops = [name for name in FORMS if name != OURS]
    kept = all(
        memory[OURS] <= MEMORY_TARGET * memory[name]
        and times[OURS] <= TIME_TARGET * times[name]
        for name in loops
    )
    print(f'target (memory 1/8, time 1/3 of either): {"kept" if kept else "MISSED"}')


if __name__ == '__main__':
    main()
