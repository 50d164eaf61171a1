# MEDiC, ViT-Ti/16 student; the rest as ViT-B/16.
_base_ = './medic_vit-base-p16.py'

model = dict(
    backbone=dict(arch='deit-tiny', drop_path_rate=0.0),
    neck=dict(embed_dim=192),
    head=dict(embed_dims=192),
)
