"""What evolved masks cost: time of a full-size MEDiC step with them, over one without.

    python benchmarks/evolved_step.py

The model is MEDiC's ViT-B/16 at 224 px with a CLIP ViT-B/16 teacher, all weights
random, and its own losses. A step is the loss and its gradients on one batch of random
images; the optimizer, which is the same in every row, is left out. The masks of the
first row are given (blocks); in the others the teacher returns its attention too, and
the masks are made from it. All hide the same number of patches.

Rows are timed in turn, round by round, so that a slow moment of the machine meets all
of them; a ratio is the median over rounds. ``--clock cpu`` counts the time that the
process computes, in place of the time that passes: for a machine with other work. Each
clustering stands where it takes longest: EM in the first epoch, hierarchical in the
last.

Memory: the most that a clustering holds at a time, beside the attention itself, as
torch's profiler sees it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.masking import (
    block_mask,
    cluster_em,
    cluster_hierarchical,
    masked_count,
)
from medic_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/medic/medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'
GRID, EPOCHS, MOST_CLUSTERS, LEAST_CLUSTERS = (14, 14), 300, 40, 10
RATIOS = (0.40, 0.75)
TARGET = 1.15
MIB = 2**20
#: Name of a row to settings of ``EvolvedMasking``.
MASKINGS = {
    'EM': dict(method='em', progress=(0, EPOCHS)),
    'HC': dict(method='hierarchical', progress=(EPOCHS - 1, EPOCHS)),
    'HC + bias': dict(
        method='hierarchical',
        progress=(EPOCHS - 1, EPOCHS),
        clustering=dict(spatial_bias=1.0),
    ),
}
CLUSTERINGS = {
    'EM': partial(cluster_em, num_clusters=MOST_CLUSTERS),
    'HC': partial(cluster_hierarchical, num_clusters=LEAST_CLUSTERS),
    'HC + bias': partial(
        cluster_hierarchical, num_clusters=LEAST_CLUSTERS, spatial_bias=1.0
    ),
}


def build_model() -> nn.Module:
    """MEDiC of the config, in training mode, with random weights all over."""
    cfg = Config.fromfile(ROOT / CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.target_generator.update(random_weights=True, weights=None)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    return model.train()


def build_masking(model: nn.Module, name: str, ratio: float) -> nn.Module:
    """Evolved masks from the attention of the model's teacher."""
    schedule = dict(clusters=(MOST_CLUSTERS, LEAST_CLUSTERS), spread=0)
    settings = dict(source='teacher', mask_ratio=ratio, schedule=schedule)
    masking = MODELS.build(
        dict(type='medic_mm.EvolvedMasking', **settings, **MASKINGS[name])
    )
    masking.prepare(model.backbone, model.target_generator)
    return masking


def block_samples(batch: int, ratio: float) -> list[DataSample]:
    """Data samples with block masks, as ``BlockMask`` gives them."""
    count = masked_count(GRID[0] * GRID[1], ratio)
    masks = block_mask(batch, GRID, count).view(batch, *GRID)
    samples = [DataSample() for _ in range(batch)]
    for sample, mask in zip(samples, masks, strict=True):
        sample.set_field(mask, 'mask')
    return samples


def step(
    model: nn.Module, masking: nn.Module | None, images: Tensor, samples: list
) -> None:
    """Losses of a batch and their gradients."""
    model.masking = masking
    loss, _ = model.parse_losses(model.loss(images, samples))
    loss.backward()


def ask_teacher(model: nn.Module, images: Tensor, attention: bool) -> Tensor | None:
    """The teacher's pass, as a step does it."""
    preprocessor = model.data_preprocessor
    out = model.target_generator(
        images, preprocessor.mean, preprocessor.std, attention=attention
    )
    return out.attention


def time_in_turn(
    rows: dict[str, Callable[[], object]],
    model: nn.Module,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds of each row in each round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for index in range(1 + rounds):
        for name, work in rows.items():
            model.zero_grad(set_to_none=True)
            start = clock()
            work()
            if index:
                times[name].append(clock() - start)
    return times


def over(times: dict[str, list[float]], name: str, other: str) -> float:
    """Median over rounds of one row's time over another's."""
    pairs = zip(times[name], times[other], strict=True)
    return statistics.median(one / two for one, two in pairs)


def compare_steps(
    model: nn.Module, images: Tensor, rounds: int, clock: Callable[[], float]
) -> None:
    """Steps at each ratio, over that with given masks."""
    for ratio in RATIOS:
        given = block_samples(len(images), ratio)
        rows = {'given masks': partial(step, model, None, images, given)}
        for name in MASKINGS:
            masking = build_masking(model, name, ratio)
            rows[name] = partial(step, model, masking, images, [])
        times = time_in_turn(rows, model, rounds, clock)
        print(f'\nstep, {ratio * 100:.0f} % hidden')
        for name in rows:
            ratio_of = over(times, name, 'given masks')
            kept = 'kept' if ratio_of <= TARGET else 'MISSED'
            note = '' if name == 'given masks' else f'  x {ratio_of:.3f}  {kept}'
            median, least = statistics.median(times[name]), min(times[name])
            print(f'  {name:<32}{median:8.3f} s  least {least:7.3f} s{note}')
    print(f'  target: at most x {TARGET:.2f}', flush=True)


def compare_parts(
    model: nn.Module, images: Tensor, rounds: int, clock: Callable[[], float]
) -> None:
    """What the added time is made of."""
    attention = ask_teacher(model, images, attention=True)
    rows = {
        'teacher, tokens': partial(ask_teacher, model, images, False),
        'teacher, tokens and attention': partial(ask_teacher, model, images, True),
    }
    for name, cluster in CLUSTERINGS.items():
        rows[f'clustering, {name}'] = partial(cluster, attention)
    times = time_in_turn(rows, model, rounds, clock)
    print('\nparts')
    for name in rows:
        print(f'  {name:<32}{statistics.median(times[name]):8.3f} s')
    ratio = over(times, 'teacher, tokens and attention', 'teacher, tokens')
    print(f'  attention on top of the tokens   x {ratio:.3f}', flush=True)


def most_held(work: Callable[[], object]) -> float:
    """MiB that a call holds at most, counted from its allocations."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as record:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    changes = [event for event in events if event.get('name') == '[memory]']
    held = most = 0
    for change in sorted(changes, key=lambda event: event['ts']):
        held += change['args']['Bytes']
        most = max(most, held)
    return most / MIB


def print_memory(batches: list[int]) -> None:
    """Peaks of each clustering over the size of the batch."""
    length = GRID[0] * GRID[1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(batches), length, length, generator=generator)
    attention = (2 * noise).softmax(-1)
    print(f'\npeak memory of a clustering, {length} patches, MiB (MiB per image)')
    print('  batch' + ''.join(f'{batch:>18}' for batch in batches))
    for name, cluster in CLUSTERINGS.items():
        cluster(attention[:1])  # constants that are made once
        peaks = [most_held(partial(cluster, attention[:size])) for size in batches]
        cells = (f'{p:.2f} ({p / b:.3f})' for p, b in zip(peaks, batches, strict=True))
        print(f'  {name:<10}' + ''.join(f'{cell:>18}' for cell in cells))


def main() -> None:
    """Print the ratios, the parts and the memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batch', type=int, default=8, help='images (8)')
    parser.add_argument('--rounds', type=int, default=5, help='counted rounds (5)')
    parser.add_argument('--threads', type=int, help="torch's own choice by default")
    parser.add_argument('--clock', choices=['wall', 'cpu'], default='wall')
    parser.add_argument(
        '--memory-batches', type=int, nargs='+', default=[8, 16, 32, 64]
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance('benchmark', log_level='ERROR')
    torch.manual_seed(0)
    print_memory(args.memory_batches)
    clock = time.process_time if args.clock == 'cpu' else time.perf_counter
    model = build_model()
    images = torch.randn(args.batch, 3, 224, 224)
    threads = torch.get_num_threads()
    print(f'\nbatch {args.batch}, {threads} thread(s), {args.clock} time, medians')
    compare_parts(model, images, args.rounds, clock)
    compare_steps(model, images, args.rounds, clock)


if __name__ == '__main__':
    main()
