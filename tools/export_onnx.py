"""Write a pre-trained backbone as an ONNX file and check its numbers.

    python tools/export_onnx.py CHECKPOINT backbone.onnx

Input ``images`` (normalised, any batch size), outputs ``class_token`` and
``patch_tokens``. CHECKPOINT may also be a folder of tools/export_hf.py or an id of the
Hugging Face Hub. Needs the packages onnx and onnxscript; onnxruntime makes the check
quick.
"""

from __future__ import annotations

import argparse

from medic_mm.cli.export_onnx import export_onnx
from medic_mm.settings.cli import sentences_for_users


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='checkpoint, exported folder or id')
    parser.add_argument('file', help='to write to, .onnx')
    parser.add_argument('--config', help='for a checkpoint that does not carry it')
    parser.add_argument('--img-size', type=int, help='another size of images')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        written = export_onnx(args.checkpoint, args.file, args.config, args.img_size)
    size = written.path.stat().st_size / 1e6
    print(f'wrote {written.path} ({size:.1f} MB)')
    print(
        f'largest difference of a token: {written.difference:.2g} '
        f'(checked by {written.runner})'
    )


if __name__ == '__main__':
    main()
