# W balanced over teacher heads: not in the paper, whose W is free to leave most of
# them unused (docs/mimhd.md).
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(head=dict(matching=dict(balance='sinkhorn', temperature=0.1)))
