"""Make a Hugging Face folder from a checkpoint: the command ``medic-mm export-hf``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('export-hf')
