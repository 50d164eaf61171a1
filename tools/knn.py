"""Evaluate a pre-trained backbone by k-NN: the command ``medic-mm knn``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('knn')
