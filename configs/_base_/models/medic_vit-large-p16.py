# MEDiC, ViT-L/16 student; the rest as ViT-B/16.
_base_ = './medic_vit-base-p16.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    neck=dict(embed_dim=1024),
    head=dict(embed_dims=1024),
)
