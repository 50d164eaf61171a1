# Linear probe of the student of laptop size (192 wide, 6 blocks, 64 px).
_base_ = './linear_vit-base-p16.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=6,
            num_heads=3,
            feedforward_channels=768,
        ),
        img_size=64,
        patch_size=8,
        frozen_stages=6,
    ),
    neck=dict(embed_dims=192),
    head=dict(num_classes=10, in_channels=192),
)
