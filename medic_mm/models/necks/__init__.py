"""From tokens to predictions.

MEDiC's pixel decoder is the host's ``mmpretrain.MAEPretrainDecoder`` as it is.
"""

from medic_mm.models.necks.dual_view_decoder import DualViewDecoder
from medic_mm.models.necks.probe_neck import ProbeNeck

__all__ = ['DualViewDecoder', 'ProbeNeck']
