"""What all pictures share: arguments, networks, batches of images, pages and files."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import TwoNormDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from medic_mm.checkpoints import read_state_dict
from medic_mm.checkpoints.strict import load_strictly
from medic_mm.errors import UserError
from medic_mm.helpers import choose_device, type_name
from medic_mm.models.teachers import FrozenTeacher
from medic_mm.registry import MODELS
from medic_mm.settings.images import find_images, load_images
from medic_mm.settings.student import RANDOM, Student, load_student

#: The shade of hidden patches.
HIDDEN_GREY = 0.55
_BATCH = 8
_DOTS_PER_INCH = 130
_EDGE = 0.08  # inches, as all lengths of pages
_CAPTION_SIZE = 10  # points
_LINE = 1.35 * _CAPTION_SIZE / 72
#: Mean width of a letter of matplotlib's default font, and some to spare.
_LETTER = 0.58 * _CAPTION_SIZE / 72

T = TypeVar('T')


@dataclass(frozen=True)
class Opened:
    """The networks of a config and the images that they look at.

    The student is in eval mode, on the device. There is no teacher where the config has
    none, or none that is shown.
    """

    student: Student
    teacher: FrozenTeacher | None
    paths: list[Path]
    inputs: Tensor  # uint8 BGR (B, 3, H, W)
    notes: list[str]  # sentences for the user

    def read(
        self, readers: Mapping[str, Callable[[Tensor, Tensor, Tensor], T]]
    ) -> tuple[Tensor, dict[str, list[T]]]:
        """The images as shown, and what each reader makes of each batch.

        Args:
            readers: Functions of a normalised batch, its means and its standard
                deviations. One called ``'teacher'`` is left out without a teacher, and,
                with a note, where it raises a ``ValueError``.

        Returns:
            RGB in 0..1 ``(B, 3, H, W)``; and a list for each reader that is left.
        """
        pictures: list[Tensor] = []
        found: dict[str, list[T]] = {name: [] for name in readers}
        if self.teacher is None:
            found.pop('teacher', None)
        for images, mean, std in normalised(
            self.student.data_preprocessor, self.inputs
        ):
            pictures.append(as_pictures(images, mean, std))
            for name in list(found):
                try:
                    found[name].append(readers[name](images, mean, std))
                except ValueError as error:
                    if name != 'teacher':
                        raise UserError(str(error)) from error
                    self.notes.append(f'The teacher is left out: {error}.')
                    del found[name]
        return torch.cat(pictures), found


def open_networks(
    config: Config,
    checkpoint: str,
    images: Sequence[str | Path],
    limit: int,
    device: str,
    wanted: str | None,
) -> Opened:
    """Networks and images of a picture; enters the config's scope.

    Args:
        config: A config of pre-training.
        checkpoint: A file with the weights below ``backbone.``, loaded strictly, or
            ``'random'``: weights drawn with the config's ``randomness.seed`` (or 0).
        images: Files or folders.
        limit: At most so many images.
        device: As on the command line.
        wanted: What is read from the teacher, for a sentence; None leaves it out.

    Raises:
        UserError: for anything that cannot be used.
    """
    require_backbone(config)
    paths = find_images(images, limit)
    enter_scope(config)
    try:
        student = load_student(config, checkpoint).to(choose_device(device))
    except RuntimeError as error:
        raise UserError(str(error)) from error
    size = getattr(student.backbone, 'img_size', (224, 224))
    inputs = load_images(config, paths, size)
    teacher, notes = _load_teacher(config, wanted) if wanted else (None, [])
    return Opened(student, teacher, paths, inputs, notes)


def _load_teacher(
    config: Config, wanted: str
) -> tuple[FrozenTeacher | None, list[str]]:
    """The config's teacher with its weights; or None and why."""
    settings = config.model.get('target_generator')
    if settings is None:
        return None, ['The config has no target_generator, so no teacher is shown.']
    kind = class_of(settings)
    if not issubclass(kind, FrozenTeacher):
        name = type_name(settings)
        return None, [f'The teacher is left out: {wanted} cannot be read from {name}.']
    try:
        teacher = MODELS.build(settings)
        teacher.init_weights()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f'the teacher cannot be loaded: {error} (--no-teacher leaves it out)'
        ) from error
    return teacher, []


def class_of(settings: Mapping[str, Any]) -> type:
    """The class that a model's settings name, ``object`` where there is none."""
    kind = settings['type']
    if isinstance(kind, str):
        # a bare name of OpenMMLab's is found in the default scope
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else object


def require_backbone(config: Config) -> None:
    """Refuse a config without ``model.backbone``, which is not one of pre-training."""
    if 'backbone' not in (config.get('model') or {}):
        raise UserError('the config has no model.backbone: give one of pre-training')


def enter_scope(config: Config) -> None:
    """Let bare names in the config mean what they mean in training."""
    init_default_scope(config.get('default_scope', 'mmpretrain'))


def load_whole(model: nn.Module, checkpoint: str) -> None:
    """Give a model the weights of a checkpoint, or ``'random'`` ones.

    A frozen teacher outside the module tree is not touched.

    Raises:
        UserError: for a file that cannot be read, and where weights are missing, left
            over, of another shape or not numbers; it names some.
    """
    if checkpoint == RANDOM:
        model.init_weights()
    else:
        load_strictly(model, read_state_dict(checkpoint), f'checkpoint {checkpoint}')


def normalised(
    preprocessor: nn.Module, inputs: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches as the backbone takes them, and the statistics that made them.

    ``inputs`` are uint8 BGR ``(B, 3, H, W)``, as :func:`load_images` gives them; the
    means and standard deviations are ``(3, 1, 1)``.
    """
    # mmpretrain's preprocessor of two views wants both; the backbone gets the first
    two_views = isinstance(preprocessor, TwoNormDataPreprocessor)
    for batch in inputs.split(_BATCH):
        samples = [DataSample() for _ in batch]
        views = [batch, batch] if two_views else batch
        found = preprocessor(dict(inputs=views, data_samples=samples), False)['inputs']
        images = found[0] if two_views else found
        yield images, *pixel_statistics(preprocessor, images)


def pixel_statistics(preprocessor: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of a preprocessor; 0 and 1 where it has none, and so none apply."""
    plain = images.new_zeros(3, 1, 1)
    return getattr(preprocessor, 'mean', plain), getattr(preprocessor, 'std', plain + 1)


def as_pictures(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised images as RGB in 0..1, on the CPU."""
    return ((images * std + mean) / 255).clamp(0, 1).cpu()


# pages and files


def add_cells(
    figure: Figure,
    size: tuple[float, float],
    columns: int,
    below: Sequence[float],
    caption: str,
    heading: float = 0.0,
    left: float = 0.0,
    across: float = 0.06,
) -> np.ndarray:
    """Fill a figure with empty cells, and set its size to fit them.

    Args:
        figure: A figure without axes.
        size: ``(width, height)`` of a cell in inches.
        columns: Cells in a row.
        below: Inches between each row and the next; as many rows as numbers.
        caption: Text at the top, one line a sentence, broken where the page is narrow.
        heading: Inches above the first row for its titles.
        left: Inches left of the first column for names of rows.
        across: Inches between columns.

    Returns:
        ``(rows, columns)`` of axes without ticks or frames.
    """
    width, height = size
    page_width = _EDGE + left + columns * (width + across) - across + _EDGE
    lines = wrap_caption(caption, page_width)
    top = _EDGE + len(lines) * _LINE + 0.1 + heading
    page_height = top + sum(height + gap for gap in below) + _EDGE
    figure.set_size_inches(page_width, page_height)
    figure.text(
        *(_EDGE / page_width, 1 - _EDGE / page_height, '\n'.join(lines)),
        ha='left',
        va='top',
        fontsize=_CAPTION_SIZE,
        linespacing=1.3,
    )
    cells = np.empty((len(below), columns), dtype=object)
    upper = page_height - top
    for row, gap in enumerate(below):
        for column in range(columns):
            x, y = _EDGE + left + column * (width + across), upper - height
            box = (x / page_width, y / page_height)
            share = (width / page_width, height / page_height)
            cells[row, column] = figure.add_axes((*box, *share))
            cells[row, column].set_axis_off()
        upper -= height + gap
    return cells


def wrap_caption(caption: str, page_width: float) -> list[str]:
    """Lines of a caption that fit a page of so many inches."""
    letters = max(int((page_width - 2 * _EDGE) / _LETTER), 20)
    lines = [textwrap.wrap(line, letters) for line in caption.splitlines()]
    return [part for line in lines for part in line]


def draw_rows(
    figure: FigureBase,
    rows: Mapping[str, Tensor],
    titles: Sequence[str] = (),
    title_size: float | None = None,
    **names: float,
) -> np.ndarray:
    """A named row for each kind of picture, a column for each image.

    Args:
        figure: A figure or subfigure without axes.
        rows: Name to RGB pictures in 0..1, ``(N, 3, h, w)``.
        titles: One per image, written above its column.
        title_size: Of the titles, in points.
        names: Style of the names.
    """
    count = len(next(iter(rows.values())))
    axes = figure.subplots(len(rows), count, squeeze=False)
    style = dict(rotation=0, ha='right', va='center', labelpad=10) | names
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, **style)
        for axis, shown in zip(row, pictures, strict=True):
            axis.imshow(shown.permute(1, 2, 0).numpy(), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=title_size)
    return axes


def write(
    axis: Axes,
    x: float,
    y: float,
    text: str,
    ha: str,
    va: str,
    size: float,
    **style: Any,
) -> None:
    """Text at a place of a cell, in shares of its sides."""
    style |= dict(transform=axis.transAxes, ha=ha, va=va, fontsize=size)
    axis.text(x, y, text, **style)


def require_folder(out: str | Path) -> Path:
    """``out``, which need not exist yet.

    Raises:
        UserError: where it is a file.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f'--out {out} is a file: give a folder')
    return Path(out)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, its folder included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    return path


def file_of_image(out: Path, index: int, image: Path) -> Path:
    """The picture of one image: numbered, since images of folders may share names."""
    return out / f'{index + 1:03d}_{image.stem}.png'


def file_of_page(out: Path, name: str, page: int) -> Path:
    """``name.png`` for page 0, then ``name_2.png`` and so on."""
    return out / f'{name}{f"_{page + 1}" if page else ""}.png'
