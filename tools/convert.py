"""Change the layout of a checkpoint: the command ``medic-mm convert``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('convert')
