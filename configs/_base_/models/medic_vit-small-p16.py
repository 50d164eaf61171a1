# MEDiC, ViT-S/16 student; the rest as ViT-B/16.
_base_ = './medic_vit-base-p16.py'

model = dict(
    backbone=dict(arch='deit-small', drop_path_rate=0.1),
    neck=dict(embed_dim=384),
    head=dict(embed_dims=384),
)
