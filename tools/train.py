"""Train a model: the command ``medic-mm train``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('train')
