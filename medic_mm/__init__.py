"""MEDiC and MIM-HD masked distillation for the OpenMMLab stack.

Importing the package is cheap and needs torch only; everything that touches a
host library (mmengine, mmpretrain) is imported by the rooms that use it, through
:mod:`medic_mm.registry`.
"""

from medic_mm.version import __version__

__all__ = ['__version__']
