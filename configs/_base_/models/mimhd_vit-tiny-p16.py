# MIM-HD, ViT-Ti/16 student (192 wide, 3 heads; mmpretrain calls it 'deit-tiny').
_base_ = './mimhd_vit-base-p16.py'

model = dict(
    backbone=dict(arch='deit-tiny'),
    neck=dict(embed_dims=192),
    head=dict(student_heads=3),
)
