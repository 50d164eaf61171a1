"""What the command-line tools do, for use from Python.

Importing this package imports mmengine but no model.
"""

from medic_mm.apis.cli import sentences_for_users
from medic_mm.apis.run_config import LAUNCHERS
from medic_mm.apis.test import run_testing
from medic_mm.apis.train import check_training, run_training
from medic_mm.errors import UserError
from medic_mm.settings.arguments import OptionAction
from medic_mm.settings.options import check_options

__all__ = [
    'LAUNCHERS',
    'OptionAction',
    'UserError',
    'check_options',
    'check_training',
    'run_testing',
    'run_training',
    'sentences_for_users',
]
