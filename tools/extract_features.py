"""Write the features of image files: the command ``medic-mm features``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('features')
