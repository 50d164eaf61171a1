"""Convert a checkpoint between the layouts of mmpretrain, mmseg, timm and MAE.

    python tools/convert.py SOURCE DEST --to timm
    python tools/convert.py SOURCE DEST --to mmseg --img-size 512

The layout of SOURCE is found by itself: mmpretrain's, mmseg's, timm's, the official
MAE's, open_clip's visual tower, the released MEDiC, MaskDistill and TinyMIM, or Hugging
Face's ViT and ViTMAE. The ending of DEST decides its format: .safetensors or .pth. What
is left out is printed. docs/checkpoints.md has the table of layouts.
"""

from __future__ import annotations

import argparse

from medic_mm.cli.convert import LAYOUTS, TARGETS, convert_file
from medic_mm.settings.cli import sentences_for_users


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', help='checkpoint to convert')
    parser.add_argument('dest', help='file to write, .safetensors or .pth')
    parser.add_argument('--to', required=True, choices=TARGETS, help='layout wanted')
    parser.add_argument(
        '--from',
        dest='layout',
        default='auto',
        choices=('auto', *LAYOUTS),
        help='layout of SOURCE (default: found by its names)',
    )
    parser.add_argument(
        '--img-size', type=int, metavar='N', help='resize position embeddings'
    )
    parser.add_argument(
        '--patch-size', type=int, metavar='N', help='resize the patch embedding'
    )
    parser.add_argument(
        '--source-grid',
        type=int,
        nargs=2,
        metavar=('ROWS', 'COLUMNS'),
        help='patches that the positions in SOURCE are for, where it does not say '
        '(default: a square)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        report = convert_file(
            args.source,
            args.dest,
            args.to,
            layout=args.layout,
            img_size=args.img_size,
            patch_size=args.patch_size,
            source_grid=args.source_grid,
        )
    print(report.text())


if __name__ == '__main__':
    main()
