# Relations alone, both sides re-split into 8 heads.
_base_ = './mimhd-relations_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'

model = dict(
    head=dict(
        matching=dict(_delete_=True, type='medic_mm.RelationHeadMatching', num_heads=8),
    ),
)
