"""From tokens to predictions.

MEDiC's pixel decoder is the host's ``mmpretrain.MAEPretrainDecoder`` as it is.
"""
