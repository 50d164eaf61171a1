"""Write a pre-trained backbone as an ONNX file and check its numbers.

    medic-mm export-onnx CHECKPOINT backbone.onnx
    medic-mm export-onnx CONFIG CHECKPOINT backbone.onnx

CONFIG is that of the pre-training, for a checkpoint that does not carry it. Input
``images`` (normalised, any batch size), outputs ``class_token`` and ``patch_tokens``.
CHECKPOINT may also be a folder of ``export-hf`` or an id of the Hugging Face Hub. Needs
the packages onnx and onnxscript; onnxruntime makes the check quick.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from medic_mm.errors import UserError
from medic_mm.export.load import load_model
from medic_mm.export.onnx_file import measure_difference, write_onnx
from medic_mm.settings.arguments import add_export, add_shared

#: Largest difference of a token, in fp32, that a file may have.
TOLERANCE = 1e-3


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add_export(parser, 'file', 'to write to, .onnx')
    parser.add_argument('--config', dest='own_config', help='the same as CONFIG')
    add_shared(parser, '--img-size')


def run(args: Namespace) -> None:
    """Write the file; print its size and how well it computes the tokens."""
    config = args.config or args.own_config
    written = export_onnx(args.checkpoint, args.file, config, args.img_size)
    size = written.path.stat().st_size / 1e6
    print(f'wrote {written.path} ({size:.1f} MB)')
    print(
        f'largest difference of a token: {written.difference:.2g} '
        f'(checked by {written.runner})'
    )


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
        raise UserError(f'{path} is not a name for an ONNX file: use one with .onnx')
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
