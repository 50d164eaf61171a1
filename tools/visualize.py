"""Draw what a pre-trained model makes of images: the command ``medic-mm visualize``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('visualize')
