"""Evaluate a checkpoint on all data: the command ``medic-mm evaluate``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('evaluate')
