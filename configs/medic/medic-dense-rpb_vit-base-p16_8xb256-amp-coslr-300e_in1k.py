# Token + CLS with the dense encoding of the released code: the host's BEiT with shared
# relative position bias and no absolute position embedding. The class that the released
# token+CLS checkpoint was trained with.
_base_ = '../maskdistill/maskdistill_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(head=dict(weights=dict(cls=0.30)))
