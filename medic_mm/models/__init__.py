"""Networks, heads and losses; importing this package registers them."""

from medic_mm.models.algorithms import *  # noqa: F403
from medic_mm.models.backbones import *  # noqa: F403
from medic_mm.models.heads import *  # noqa: F403
from medic_mm.models.losses import *  # noqa: F403
from medic_mm.models.necks import *  # noqa: F403
from medic_mm.models.teachers import *  # noqa: F403
