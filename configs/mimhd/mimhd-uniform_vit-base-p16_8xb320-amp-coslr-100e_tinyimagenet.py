# Every student head gets the mean over all teacher heads: W is uniform.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(head=dict(matching=dict(uniform=True)))
