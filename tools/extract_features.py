"""Write the features that a pre-trained backbone gives of images.

    python tools/extract_features.py IMAGES --checkpoint FILE --out cls.safetensors
    python tools/extract_features.py IMAGES --model NAME/MODEL --out cls.safetensors

IMAGES are files or folders. The file gets the tensor ``features``, one row an image;
its metadata say which file each row is, and which files were skipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medic_mm.cli.features import extract_features
from medic_mm.export.tokens import POOLS
from medic_mm.settings.cli import sentences_for_users


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--checkpoint', help='a checkpoint of pre-training')
    source.add_argument('--model', help='an exported folder, or an id of the Hub')
    parser.add_argument('--out', type=Path, required=True, help='file, .safetensors')
    parser.add_argument('--config', help='for a checkpoint that does not carry it')
    parser.add_argument(
        '--layer',
        type=int,
        help='a block from 1, its output without norm; default: last, final norm',
    )
    parser.add_argument('--pool', choices=POOLS, default='cls')
    parser.add_argument('--img-size', type=int, help='another size of images')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2, help='that read images')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda:0, ...')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with sentences_for_users():
        features = extract_features(
            args.images,
            args.checkpoint or args.model,
            args.out,
            config=args.config,
            layer=args.layer,
            pool=args.pool,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            img_size=args.img_size,
        )
    for file, reason in features.skipped.items():
        print(f'skipped {file}: {reason}')
    print(
        f'wrote {args.out}: {tuple(features.values.shape)}, {len(features.files)} '
        f'images, {len(features.skipped)} skipped, {features.seconds:.1f} s'
    )


if __name__ == '__main__':
    main()
