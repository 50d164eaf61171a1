# Figure 6: view 1 hides 25 % of the patches, view 2 the others.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(mask_ratio=0.25)
