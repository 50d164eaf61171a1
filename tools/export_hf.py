"""Make a Hugging Face folder from a checkpoint; timm loads it by its name.

    python tools/export_hf.py none CHECKPOINT FOLDER --licence apache-2.0
    python tools/export_hf.py none CHECKPOINT FOLDER --push NAME/MODEL

The first word is the config of the pre-training, or ``none``: the one that the
checkpoint carries. Nothing is uploaded without --push.
"""

from __future__ import annotations

import argparse

from mmengine.logging import MMLogger

from medic_mm.cli.export_hf import export_hf, push
from medic_mm.settings.cli import sentences_for_users


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help="config of the pre-training, or 'none'")
    parser.add_argument('checkpoint', help='file with weights below backbone.')
    parser.add_argument('folder', help='new folder to write to')
    parser.add_argument(
        '--licence',
        default='unknown',
        help="of the weights, for the model card: an identifier of the Hub's",
    )
    parser.add_argument(
        '--plain-heads',
        action='store_true',
        help='for a last block with other heads (TinyMIM): give it those of the rest',
    )
    parser.add_argument('--push', metavar='NAME/MODEL', help='upload to the Hub')
    parser.add_argument(
        '--private', action='store_true', help='a new repository is private'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    MMLogger.get_instance('export_hf', log_level='WARNING')
    with sentences_for_users():
        exported = export_hf(
            args.checkpoint,
            args.folder,
            config=None if args.config == 'none' else args.config,
            licence=args.licence,
            repository=args.push,
            plain_heads=args.plain_heads,
        )
        for note in exported.notes:
            print(note)
        for file in exported.files:
            print(f'wrote {file}')
        if exported.difference is not None:
            print(f'largest difference of a token: {exported.difference:.2g}')
        if args.push:
            print(f'done: {push(exported, args.push, args.private, print)}')


if __name__ == '__main__':
    main()
