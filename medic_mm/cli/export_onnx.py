"""An ONNX file from a checkpoint, as ``tools/export_onnx.py`` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medic_mm.errors import UserError
from medic_mm.export.load import load_model
from medic_mm.export.onnx_file import measure_difference, write_onnx

#: Largest difference of a token, in fp32, that a file may have.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Attributes:
        path: The file.
        difference: Largest difference of a token from the network's.
        runner: What ran the file for that.
    """

    path: Path
    difference: float
    runner: str


def export_onnx(
    source: str | Path,
    path: str | Path,
    config: str | Path | None = None,
    img_size: int | None = None,
) -> OnnxFile:
    """Write an ONNX file and compare what it computes with the network.

    Args:
        source: What :func:`medic_mm.load_model` takes.
        path: The file, ``.onnx``.
        config: Config of a checkpoint that does not carry it.
        img_size: Another size of images.

    Raises:
        UserError: for a checkpoint that cannot be loaded, missing packages, or tokens
            that differ by :data:`TOLERANCE` or more.
    """
    path = Path(path)
    if path.suffix != '.onnx' or path.is_dir():
        raise UserError(f'{path} is no name for an ONNX file: use one with .onnx')
    try:
        model = load_model(source, config, img_size=img_size)
        write_onnx(model, path)
        difference, runner = measure_difference(model, path)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(' '.join(str(error).split())) from error
    if not difference < TOLERANCE:  # also for NaN
        raise UserError(
            f'{path} gives tokens that differ by {difference:.2g} from the network '
            f'({runner}): do not use it'
        )
    return OnnxFile(path, difference, runner)
