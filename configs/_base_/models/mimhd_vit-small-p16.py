# MIM-HD, ViT-S/16 student (384 wide, 6 heads; mmpretrain calls it 'deit-small').
_base_ = './mimhd_vit-base-p16.py'

model = dict(
    backbone=dict(arch='deit-small'),
    neck=dict(embed_dims=384),
    head=dict(student_heads=6),
)
