# Figure 2 (c): TinyMIM's adaptive block; the decoder's term stays.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(
    backbone=dict(block_heads=16),
    head=dict(
        student_heads=16,
        matching=dict(_delete_=True, type='medic_mm.OneToOneMatching'),
    ),
)
