# Figure 2 (b): one teacher head for each student head.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(
    head=dict(matching=dict(_delete_=True, type='medic_mm.SelectMatching')),
)
