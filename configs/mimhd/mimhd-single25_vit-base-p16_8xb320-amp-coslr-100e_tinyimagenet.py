# Figure 6: one view, which hides 25 % of the patches and predicts only those.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(mask_ratio=0.25, neck=dict(views=1))
