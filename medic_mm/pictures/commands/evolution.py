"""EM against hierarchical clustering: ``tools/visualize.py evolution``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from medic_mm.errors import UserError
from medic_mm.pictures.commands.attended import Attended, count_masked, read_attended
from medic_mm.pictures.common import (
    Drawn,
    file_of_image,
    require_folder,
    save_figure,
)
from medic_mm.pictures.evolution import (
    EvolutionSettings,
    Stage,
    evolve,
    format_table,
    spread_epochs,
    table_of,
)
from medic_mm.pictures.evolution_figures import draw_evolution


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

    Args:
        config: A config of pre-training; its teacher's attention is clustered.
        images: Image files, or folders of them.
        out: Folder to write to: one picture per image, and ``evolution.json``.
        ratio: Share of patches to hide. Default: the config's own, or 0.4.
        epochs: Length of the training. Default: the config's own, or 300.
        at: Epochs to show, from 0. Default: six, more of them early.
        gamma: Of the schedule of alpha.
        clusters: In the first epoch, and in the last.
        spatial_bias: Weight of the distance in ``'HC + bias'``.
        seed: The same seed gives the same pictures.
        limit: Take at most so many images.
        device: As in :func:`visualize_attention`.

    Raises:
        UserError: for images, settings or a config that cannot be used.
    """
    folder = require_folder(out)
    length = epochs if epochs is not None else _own_epochs(config)
    _require_epochs(length, at)
    found = read_attended(config, images, limit, device)
    attention = _require_attention(found)
    settings = EvolutionSettings(
        num_masked=count_masked(config, ratio, found.grid),
        epochs=length,
        at=tuple(at) if at is not None else spread_epochs(length),
        gamma=gamma,
        first=clusters[0],
        last=clusters[1],
        spatial_bias=spatial_bias,
        seed=seed,
    )
    return _write(folder, found, _evolve(attention, found.grid, settings), settings)


def _evolve(
    attention: Tensor, grid: tuple[int, int], settings: EvolutionSettings
) -> list[Stage]:
    try:
        return evolve(attention, grid, settings)
    except ValueError as error:
        raise UserError(str(error)) from error


def _own_epochs(config: Config) -> int:
    return (config.get('train_cfg') or {}).get('max_epochs') or 300


def _require_epochs(epochs: int, at: Sequence[int] | None) -> None:
    if epochs < 1:
        raise UserError(f'--epochs {epochs}: use 1 or more')
    for epoch in at or ():
        if not 0 <= epoch < epochs:
            raise UserError(
                f'--at {epoch} is out of range: a training of {epochs} epochs has 0 to '
                f'{epochs - 1}'
            )


def _require_attention(found: Attended) -> Tensor:
    if found.attention is None:
        reason = ' '.join(found.notes)
        raise UserError(f"evolution needs a teacher's attention: {reason}")
    return found.attention


def _write(
    out: Path, found: Attended, stages: Sequence[Stage], settings: EvolutionSettings
) -> Drawn:
    files = []
    for index, (path, picture) in enumerate(
        zip(found.paths, found.pictures, strict=True)
    ):
        figure = Figure()
        draw_evolution(figure, picture, stages, index, found.grid, settings)
        files.append(save_figure(figure, file_of_image(out, index, path)))
    rows = table_of(stages)
    record = dict(
        settings=asdict(settings),
        grid=found.grid,
        images=[str(path) for path in found.paths],
        rows=rows,
    )
    file = out / 'evolution.json'
    file.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    patches = found.grid[0] * found.grid[1]
    count = len(found.paths)
    table = f'mean of {count} image{"s" * (count > 1)}:\n{format_table(rows, patches)}'
    return Drawn([*files, file], [*found.notes, table])
