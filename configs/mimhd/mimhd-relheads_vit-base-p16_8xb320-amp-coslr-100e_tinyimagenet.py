# MiniLMv2's relation heads: both sides re-split into 16 heads (not in the paper).
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(
    head=dict(
        matching=dict(
            _delete_=True, type='medic_mm.RelationHeadMatching', num_heads=16
        ),
    ),
)
