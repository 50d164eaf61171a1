"""EM against hierarchical clusters over a training: ``visualize.py evolution``."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Generator, Tensor

from medic_mm.errors import UserError
from medic_mm.masking import (
    cluster_em,
    cluster_hierarchical,
    evolved_alpha,
    evolved_mask,
    evolved_num_clusters,
    spatial_coherence,
)
from medic_mm.masking.coherence import follow_clusters
from medic_mm.pictures import Drawn, add_images, add_output, register_picture
from medic_mm.pictures.common import (
    add_cells,
    file_of_image,
    require_folder,
    save_figure,
    write,
)
from medic_mm.pictures.inputs import count_masked, read_attention
from medic_mm.pictures.masks import (
    add_masking,
    evolved_kinds,
    grey_out,
    show_clusters,
)

_CELL = 1.55  # inches
_LEFT = 1.1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`visualize_evolution`."""
    parser.add_argument('config', help='config of the pre-training')
    add_images(parser)
    parser.add_argument(
        '--epochs', type=int, help="length of the training; default the config's"
    )
    parser.add_argument(
        '--at', type=int, nargs='+', metavar='EPOCH', help='epochs to show, from 0'
    )
    parser.add_argument(
        '--gamma', type=float, help='of the schedule of alpha; default 0.2'
    )
    parser.add_argument(
        '--clusters',
        type=int,
        nargs=2,
        metavar=('FIRST', 'LAST'),
        help='in the first epoch and in the last; default 40 10',
    )
    add_masking(parser)
    add_output(parser)


@register_picture(
    'evolution', 'EM against hierarchical clusters over the epochs', add_arguments
)
def visualize_evolution(
    config: Config,
    images: Sequence[str | Path],
    out: str | Path,
    ratio: float | None = None,
    epochs: int | None = None,
    at: Sequence[int] | None = None,
    gamma: float = 0.2,
    clusters: tuple[int, int] = (40, 10),
    spatial_bias: float = 1.0,
    seed: int = 0,
    limit: int = 8,
    device: str = 'auto',
) -> Drawn:
    """Draw clusters and evolved masks over the epochs, and measure the clusters.

    Writes one picture per image and ``evolution.json`` to ``out``. Arguments are those
    of :func:`add_arguments`; the attention of the config's teacher is clustered. By
    default there are as many epochs as the config has, or 300, of which six are shown,
    more of them early, and the ratio is the config's own, or 0.4.

    Raises:
        UserError: for images, settings or a config that cannot be used.
    """
    folder = require_folder(out)
    if epochs is None:
        epochs = (config.get('train_cfg') or {}).get('max_epochs') or 300
    _require_epochs(epochs, at)
    found = read_attention(config, images, limit, device)
    if found.attention is None:
        reason = ' '.join(found.notes)
        raise UserError(f"evolution needs a teacher's attention: {reason}")
    settings = EvolutionSettings(
        num_masked=count_masked(config, ratio, found.grid),
        epochs=epochs,
        at=tuple(at) if at is not None else spread_epochs(epochs),
        gamma=gamma,
        first=clusters[0],
        last=clusters[1],
        spatial_bias=spatial_bias,
        seed=seed,
    )
    stages = evolve(found.attention, found.grid, settings)
    files = []
    for index, path in enumerate(found.paths):
        figure, shown = Figure(), found.pictures[index]
        draw_evolution(figure, shown, stages, index, found.grid, settings)
        files.append(save_figure(figure, file_of_image(folder, index, path)))
    rows, count = table_of(stages), len(found.paths)
    record = dict(
        settings=asdict(settings),
        grid=found.grid,
        images=[str(path) for path in found.paths],
        rows=rows,
    )
    file = folder / 'evolution.json'
    file.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    table = format_table(rows, found.grid[0] * found.grid[1])
    mean = f'mean of {count} image{"s" * (count > 1)}:\n{table}'
    return Drawn([*files, file], [*found.notes, mean])


def _require_epochs(epochs: int, at: Sequence[int] | None) -> None:
    if epochs < 1:
        raise UserError(f'--epochs {epochs}: use 1 or more')
    for epoch in at or ():
        if not 0 <= epoch < epochs:
            raise UserError(
                f'--at {epoch} is out of range: a training of {epochs} epochs has 0 to '
                f'{epochs - 1}'
            )


@dataclass(frozen=True)
class EvolutionSettings:
    """What is drawn of a training."""

    num_masked: int  # hidden patches per image
    epochs: int = 300
    at: tuple[int, ...] = (0, 25, 50, 100, 200, 299)  # epochs shown, from 0
    gamma: float = 0.2  # of evolved_alpha
    first: int = 40  # clusters in the first epoch
    last: int = 10  # and in the last
    spatial_bias: float = 1.0  # weight of the distance in 'HC + bias'
    seed: int = 0  # of all draws, the same at each epoch


@dataclass(frozen=True)
class Stage:
    """Clusters and masks by one method at one epoch.

    Its measures, ``(B,)`` each, are ``components`` and ``boundary`` of
    :class:`SpatialCoherence`, and ``largest``, patches in the largest cluster.
    """

    method: str  # 'EM', 'HC' or 'HC + bias'
    epoch: int  # from 0
    num_clusters: int  # K by the schedule; EM may find fewer
    alpha: float  # weight of the clusters by the schedule
    ids: Tensor  # long (B, L), the cluster of each patch
    masks: Tensor  # bool (B, L), True = hidden, drawn from these clusters
    measures: dict[str, Tensor]


def spread_epochs(epochs: int) -> tuple[int, ...]:
    """Six epochs to show, denser at the start: 0, 25, 50, 100, 200, 299 of 300."""
    wanted = (0, epochs // 12, epochs // 6, epochs // 3, 2 * epochs // 3, epochs - 1)
    return tuple(sorted(set(wanted)))


def evolve(
    attention: Tensor, grid: tuple[int, int], settings: EvolutionSettings
) -> list[Stage]:
    """Cluster and mask the same attention as at each epoch, by each method.

    In a training from the student's attention, that changes too; with a teacher's, the
    schedule alone does, as here.

    Args:
        attention: ``(B, L, L)``, row = the patch that looks; L = rows * columns.
        grid: Rows and columns of patches.
        settings: As named; one out of range is a ``UserError``.

    Returns:
        All epochs of the first method, then of the next.
    """
    stages = []
    seeded = Generator().manual_seed
    for name, kind in evolved_kinds(settings.spatial_bias).items():
        for epoch in settings.at:
            alpha = evolved_alpha(epoch, settings.epochs, settings.gamma)
            clusters = evolved_num_clusters(
                epoch, settings.epochs, settings.first, settings.last
            )
            # EM's centres are drawn first, so the same seed finds the mask's clusters
            bias = kind.get('spatial_bias', 0.0)
            ids = (
                cluster_em(attention, clusters, generator=seeded(settings.seed))
                if kind['method'] == 'em'
                else cluster_hierarchical(
                    attention, clusters, spatial_bias=bias, grid=grid
                )
            )
            masks = evolved_mask(
                *(attention, grid, settings.num_masked, alpha, clusters),
                generator=seeded(settings.seed),
                **kind,
            )
            found = spatial_coherence(ids, grid)
            measures = dict(
                components=found.components,
                boundary=found.boundary,
                largest=F.one_hot(ids, clusters).sum(1).amax(1).float(),
            )
            stages.append(Stage(name, epoch, clusters, alpha, ids, masks, measures))
    return stages


def table_of(stages: Sequence[Stage]) -> list[dict]:
    """One row a method and epoch: the means over the images, and those of each."""
    return [
        dict(
            method=stage.method,
            epoch=stage.epoch,
            num_clusters=stage.num_clusters,
            alpha=round(stage.alpha, 4),
            **{name: round(v.mean().item(), 4) for name, v in stage.measures.items()},
            images={
                name: [round(each, 4) for each in v.tolist()]
                for name, v in stage.measures.items()
            },
        )
        for stage in stages
    ]


def format_table(rows: Sequence[dict], patches: int) -> str:
    """The means of :func:`table_of` for the terminal."""
    lines = [
        f'{"":<10}{"epoch":>6}{"K":>4}{"alpha":>7}{"components":>12}{"boundary":>10}'
        f'{f"largest of {patches}":>16}'
    ]
    lines += [
        f'{row["method"]:<10}{row["epoch"]:6}{row["num_clusters"]:4}'
        f'{row["alpha"]:7.2f}{row["components"]:12.2f}{row["boundary"]:10.3f}'
        f'{row["largest"]:16.0f}'
        for row in rows
    ]
    return '\n'.join(lines)


def draw_evolution(
    figure: Figure,
    picture: Tensor,
    stages: Sequence[Stage],
    index: int,
    grid: tuple[int, int],
    settings: EvolutionSettings,
) -> None:
    """One image: for each method a row of cluster maps and a row of masks.

    ``picture`` is ``(3, H, W)``, RGB in 0..1, and ``index`` its place in the batch of
    the stages. The size of the figure is set.
    """
    columns = len(settings.at)
    methods = [stages[at : at + columns] for at in range(0, len(stages), columns)]
    height, width = picture.shape[1:]
    cells = add_cells(
        figure,
        (_CELL, _CELL * height / width),
        columns,
        [0.24, 0.12] * (len(methods) - 1) + [0.24, 0.0],
        _caption(grid, settings),
        heading=0.4,
        left=_LEFT,
    )
    for axis, stage in zip(cells[0], stages, strict=False):
        axis.set_title(
            f'epoch {stage.epoch}\nK = {stage.num_clusters}, alpha = {stage.alpha:.2f}',
            fontsize=10,
            pad=4,
        )
    numbers = _same_colours(methods, index)
    for row, method in enumerate(methods):
        maps, below = cells[2 * row : 2 * row + 2]
        for axis, name in (
            (maps[0], f'{method[0].method}\nclusters'),
            (below[0], 'masks'),
        ):
            write(axis, -0.06, 0.5, name, 'right', 'center', 11)
        for column, stage in enumerate(method):
            show_clusters(maps[column], picture, numbers[row][column], grid)
            pieces, borders, largest = (v[index] for v in stage.measures.values())
            numbers_below = f'{pieces:.2f}  |  {borders:.2f}  |  {int(largest)}'
            write(maps[column], 0.5, -0.03, numbers_below, 'center', 'top', 9.5)
            below[column].imshow(
                grey_out(picture, stage.masks[index], grid), aspect='auto'
            )


def _same_colours(methods: Sequence[Sequence[Stage]], index: int) -> list[list[Tensor]]:
    """Cluster numbers by method and epoch; the last epochs lead, as they have least."""
    numbers: list[list[Tensor]] = []
    for method in methods:
        maps = [stage.ids[index] for stage in reversed(method)]
        lead = [numbers[0][-1]] if numbers else []
        followed = follow_clusters([*lead, *maps])[len(lead) :]
        numbers.append(followed[::-1])
    return numbers


def _caption(grid: tuple[int, int], settings: EvolutionSettings) -> str:
    total, hidden = grid[0] * grid[1], settings.num_masked
    return (
        f"Clusters of the teacher's attention over {settings.epochs} epochs, and masks "
        f'drawn from them ({hidden} of {total} patches hidden). '
        f'Spatial bias {settings.spatial_bias:g}.\n'
        'Below the clusters: connected pieces per cluster  |  share of neighbouring '
        f'patches in different clusters  |  patches in the largest, of {total}.'
    )
