"""Make the HTML page of a run: the command ``medic-mm report``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('report')
