"""Evaluate a pre-trained backbone by a linear probe: the command ``medic-mm probe``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('probe')
