# UperNet on ViT-Ti/16. No source gives the width of the head: the backbone's.
_base_ = './upernet_vit-base-p16.py'

model = dict(
    backbone=dict(arch='deit-tiny'),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
    auxiliary_head=dict(in_channels=192),
)
