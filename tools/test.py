"""Test a checkpoint: the command ``medic-mm test``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('test')
