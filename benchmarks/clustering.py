"""Clusterings of attention: time beside a plain merge loop and scipy; coherence.

    python benchmarks/clustering.py

Time: the median of rounds in which all take turns, random attention. The plain loop
merges image by image and computes all similarities anew at each merge; it runs on a few
images and is scaled to the batch. All results are compared with it before.

Coherence: on the attention of a ViT-S/14 over ImageNet photos, where the shared folder
has both (``MEDIC_MM_SHARED``, ``../shared`` by default): connected components per
cluster and the share of neighbouring patches in different clusters; the lower, the more
coherent. ``largest`` is the patches of the largest cluster, out of all: one that
swallows the image is coherent too.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tarfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from medic_mm.datasets.decoding import decode_image
from medic_mm.masking import cluster_em, cluster_hierarchical, spatial_coherence
from medic_mm.models.teachers import TimmTeacher

SHARED = os.environ.get('MEDIC_MM_SHARED', Path(__file__).parents[2] / 'shared')
HIERARCHICAL_TARGET, EM_TARGET, LOOP_TARGET = 0.5, 0.2, 20


def merge_loop(
    attention: Tensor, num_clusters: int, kind: str, bias: float = 0.0
) -> np.ndarray:
    """Clusters of one image ``(L, L)``, in plain steps."""
    unit = F.normalize(attention.double(), dim=-1).numpy()
    length, side = len(unit), math.isqrt(len(unit))
    places = np.stack(np.divmod(np.arange(length), side), 1)
    places = places / max(math.hypot(side - 1, side - 1), 1)
    clusters = [[i] for i in range(length)]
    while len(clusters) > num_clusters:
        means = np.stack([unit[members].mean(0) for members in clusters])
        if kind == 'centroid':
            means /= np.linalg.norm(means, axis=1, keepdims=True)
        similarity = means @ means.T  # of averages: the average over all pairs
        if bias:
            similarity -= bias * distances(places, clusters, kind)
        np.fill_diagonal(similarity, -np.inf)
        i, j = sorted(np.unravel_index(similarity.argmax(), similarity.shape))
        clusters[i] += clusters.pop(j)
    ids = np.empty(length, dtype=int)
    for number, members in enumerate(clusters):
        ids[members] = number
    return ids


def distances(places: np.ndarray, clusters: list[list[int]], kind: str) -> np.ndarray:
    """Between mean places, or the mean between places."""
    if kind == 'centroid':
        means = np.stack([places[members].mean(0) for members in clusters])
        return np.linalg.norm(means[:, None] - means, axis=-1)
    share = np.zeros((len(clusters), len(places)))
    for row, members in zip(share, clusters, strict=True):
        row[members] = 1 / len(members)
    return share @ np.linalg.norm(places[:, None] - places, axis=-1) @ share.T


def scipy_average(attention: Tensor, num_clusters: int) -> list[np.ndarray]:
    """Average linkage by scipy's compiled code, image by image."""
    unit = F.normalize(attention.double(), dim=-1)
    found = []
    for distances in (1 - unit @ unit.mT).numpy():
        tree = linkage(squareform(distances, checks=False), 'average')
        found.append(fcluster(tree, num_clusters, 'maxclust'))
    return found


def together(ids: np.ndarray | Tensor) -> np.ndarray:
    """Which patches share a cluster, whatever its number."""
    ids = np.asarray(ids)
    return ids[..., :, None] == ids[..., None, :]


def measure(forms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of a call of each form."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def print_times(args: argparse.Namespace) -> None:
    """Compare, then time."""
    generator = torch.Generator().manual_seed(0)
    length, k = args.grid**2, args.clusters
    noise = torch.randn(args.batch, length, length, generator=generator)
    attention = (2 * noise).softmax(-1)
    few = min(args.loop_images, args.batch)
    scale = args.batch / few
    loops, forms = {}, {}
    for kind, bias in product(('centroid', 'average'), (0.0, 1.0)):
        name = kind + (', bias' if bias else '')
        start = time.perf_counter()
        expected = [merge_loop(image, k, kind, bias) for image in attention[:few]]
        loops[name] = (time.perf_counter() - start) * scale
        forms[name] = partial(cluster_hierarchical, attention, k, kind, bias)
        ours = forms[name]()[:few].numpy()
        assert (ours == np.stack(expected)).all(), f'{name}: not the plain result'
    theirs = together(np.stack(scipy_average(attention, k)))
    same = (together(forms['average']()) == theirs).all()
    forms['cluster_em'] = partial(cluster_em, attention, k)
    forms['scipy, average'] = partial(scipy_average, attention, k)
    times = measure(forms, args.rounds)
    print(
        f'{args.batch} images of {length} patches to {k} clusters, '
        f'{args.threads} thread(s); plain loop on {few} images, times {scale:g}'
    )
    for name, taken in loops.items():
        print(
            f'cluster_hierarchical, {name:<16} {times[name]:7.3f} s   plain merge loop '
            f'{taken:7.3f} s, {taken / times[name]:.0f} times that'
        )
    for name in ('cluster_em', 'scipy, average'):
        print(f'{name:<38} {times[name]:7.3f} s')
    print(f"scipy's average linkage gives {'the same' if same else 'OTHER'} clusters")
    kept = times['cluster_em'] < EM_TARGET and all(
        times[name] < HIERARCHICAL_TARGET and taken >= LOOP_TARGET * times[name]
        for name, taken in loops.items()
    )
    print(
        f'target (hierarchical under {HIERARCHICAL_TARGET} s and {LOOP_TARGET} x the '
        f'plain loop, EM under {EM_TARGET} s): {"kept" if kept else "MISSED"}'
    )


def photos(archive: Path, number: int, side: int) -> Tensor:
    """Centre crops of photos drawn from the archive, ``(B, 3, side, side)``, 0..255."""
    images = []
    with tarfile.open(archive) as files:
        names = sorted(n for n in files.getnames() if n.endswith('.jpg'))
        for name in sorted(random.Random(0).sample(names, min(number, len(names)))):
            image = Image.fromarray(decode_image(files.extractfile(name).read()))
            short = min(image.size)
            left, top = ((length - short) / 2 for length in image.size)
            box = (left, top, left + short, top + short)
            image = image.resize((side, side), Image.BICUBIC, box)
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(images).float()


def teacher_attention(shared: Path, args: argparse.Namespace) -> Tensor:
    """Attention ``(B, L, L)`` of the last block, mean of the heads."""
    side = 14 * args.grid
    teacher = TimmTeacher(
        'vit_small_patch14_dinov2',
        str(shared / 'teachers' / 'vits14.safetensors'),
        input_size=side,
    )
    teacher.init_weights()
    images = photos(shared / 'data' / 'imagenet_samples.tar', args.photos, side)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    chunks = ((images - mean) / std).split(8)
    return torch.cat([teacher(c, mean, std, attention=True).attention for c in chunks])


def print_coherence(shared: Path, args: argparse.Namespace) -> None:
    """The table of EM, hierarchical, and hierarchical with a bias."""
    attention = teacher_attention(shared, args)
    grid = (args.grid, args.grid)
    print(f'\ncoherence in space, ViT-S/14 attention over {len(attention)} photos')
    print(f'{"":<34}{"clusters":>9}{"components":>12}{"boundary":>10}{"largest":>9}')
    for k in args.coherence_clusters:
        generator = torch.Generator().manual_seed(0)
        found = {'EM': cluster_em(attention, k, generator=generator)}
        for kind in ('centroid', 'average'):
            for bias in (0.0, *args.bias):
                name = f'hierarchical, {kind}' + (f', bias {bias:g}' if bias else '')
                found[name] = cluster_hierarchical(attention, k, kind, bias)
        for name, ids in found.items():
            result = spatial_coherence(ids, grid)
            sizes = F.one_hot(ids, k).sum(1).float()
            print(
                f'{name:<34}{(sizes > 0).sum(1).float().mean():9.1f}'
                f'{result.components.mean():12.2f}{result.boundary.mean():10.3f}'
                f'{sizes.amax(1).mean():9.0f}'
            )


def parse_args() -> argparse.Namespace:
    """The sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--grid', type=int, default=14, help='rows, and columns')
    parser.add_argument('--clusters', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--loop-images', type=int, default=4)
    parser.add_argument('--photos', type=int, default=64)
    parser.add_argument('--bias', type=float, nargs='+', default=[0.5, 1.0, 2.0])
    parser.add_argument('--coherence-clusters', type=int, nargs='+', default=[20])
    parser.add_argument('--shared', type=Path, default=SHARED)
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    print_times(args)
    shared = Path(args.shared)
    needed = 'teachers/vits14.safetensors', 'data/imagenet_samples.tar'
    if all((shared / name).is_file() for name in needed):
        print_coherence(shared, args)
    else:
        print(f'\nno coherence: {shared} has not both of {" and ".join(needed)}')


if __name__ == '__main__':
    main()
