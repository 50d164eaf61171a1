# TinyMIM on CIFAR-10: the last block has the teacher's 8 heads.
_base_ = '../mimhd/mimhd-relations_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'

model = dict(
    backbone=dict(block_heads=8),
    head=dict(
        student_heads=8,
        matching=dict(_delete_=True, type='medic_mm.OneToOneMatching'),
    ),
)
